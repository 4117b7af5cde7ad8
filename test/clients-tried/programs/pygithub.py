import json
import os

from github import Auth, Github

# What is set:
url = os.environ["SLUICE_URL"] + "/github"
github = Github(auth=Auth.Token(os.environ["SLUICE_KEY"]), base_url=url)
# And what is called:
repository = github.get_repo("o/r", lazy=True)
issues = [issue.title for issue in repository.get_issues()]
made = repository.create_issue("Late again")
print(json.dumps([repository.full_name, issues, made.title]))
