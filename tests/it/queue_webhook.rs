//! Webhooks through the whole server: asked for with a parameter, told with the job's answer, and
//! checked with the key set that everybody may fetch.

use serde_json::{Value, json};

use crate::support::fake_model::FakeModel;
use crate::support::pictures::input;
use crate::support::receiver::Receiver;
use crate::support::server::{TestServer, send};
use crate::webhooks::is_genuine;

#[tokio::test]
async fn a_receiver_is_told_of_good_and_bad_ends_and_can_check_who_speaks() {
    let server = TestServer::with(FakeModel::saying("t"), |settings| {
        settings.queue.allowed_webhooks = vec!["127.0.0.1".into()];
        settings.auth.api_keys = vec!["id:secret".into()];
    })
    .await;
    // Receivers hold no key.
    let keys = server.get("/.well-known/jwks.json").await;
    assert_eq!(
        (keys.status, keys.header("content-type")),
        (200, "application/json")
    );
    let under_rest = server.get("/rest/.well-known/jwks.json").await;
    assert_eq!(under_rest.text, keys.text);
    let receiver = Receiver::grateful().await;
    let webhook = format!(
        "?fal_webhook=http%3A%2F%2F127.0.0.1%3A{}%2Fhook%3Fa%3Db",
        receiver.port()
    );
    for (times, body, status) in [(1, input(), "OK"), (2, json!([]), "ERROR")] {
        let url = format!("{}{webhook}", server.queue_url("caption"));
        let request = server.client.post(url).json(&body);
        let request = request.header("authorization", "Key id:secret");
        let submitted = send(request).await.json();
        let id = &submitted["request_id"];
        assert_eq!(&submitted["gateway_request_id"], id);
        let told = receiver.told(times).await.remove(times - 1);
        assert_eq!(told.path, "/hook");
        assert_eq!(told.header("x-fal-webhook-request-id"), id);
        assert!(is_genuine(&told, &keys.text));
        let news: Value = serde_json::from_str(told.text()).unwrap();
        assert_eq!((&news["request_id"], &news["status"]), (id, &status.into()));
        let result = server.client.get(server.job_url(id.as_str().unwrap(), ""));
        let result = send(result.header("authorization", "Key id:secret")).await;
        assert_eq!(news["payload"], result.json());
    }
}
