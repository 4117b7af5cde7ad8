import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

class JavaHttpClient {
  static final String KEY = System.getenv("SLUICE_KEY");

  public static void main(String[] args) throws Exception {
    // What is set:
    URI things = URI.create(System.getenv("SLUICE_URL") + "/any/things");
    HttpClient client = HttpClient.newHttpClient();
    HttpRequest.Builder request = HttpRequest.newBuilder().header("Authorization", "Bearer " + KEY);
    // And what is called:
    var read = client.send(request.uri(URI.create(things + "/1")).build(), BodyHandlers.ofString());
    if (read.statusCode() != 200) throw new RuntimeException(read.body());
    var body = BodyPublishers.ofString("{\"name\":\"a\"}");
    var made = client.send(request.uri(things).POST(body).build(), BodyHandlers.ofString());
    System.out.println("[" + read.statusCode() + "," + made.body() + "]");
  }
}
