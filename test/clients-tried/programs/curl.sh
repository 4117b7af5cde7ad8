# What is set:
url="$SLUICE_URL/any/things"
# And what is called:
curl --http2 --silent --show-error --fail-with-body --header "Authorization: Bearer $SLUICE_KEY" "$url/1" >&2 || exit 1
curl --http2 --silent --fail --header "Authorization: Bearer $SLUICE_KEY" --json '{"name":"a"}' "$url"
