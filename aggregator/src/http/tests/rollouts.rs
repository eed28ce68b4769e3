//! Orders for leaves, and the rolling restart, as requests.

use super::*;

async fn post(door: &Door, path: &str, body: &str) -> Reply {
    door.send(Request::post(path).body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test]
async fn leaves_are_told_what_to_do() {
    let (door, leaves) = Door::over(&[("leaf-0", 3), ("leaf-1", 1)]).await;
    let reply = post(&door, "/v1/leaves/leaf-0/drain?dry_run=true", "").await;
    assert_eq!(
        reply.json(),
        json!({"leaf": "leaf-0", "was": "serving", "already": false, "settled": true, "dry_run": true, "rows": 3,
            "rows_of_all": 4})
    );
    assert_eq!(*leaves[0].fake.state.lock(), gannet_query::LeafState::Serving);
    let reply = post(&door, "/v1/leaves/leaf-0/drain", "").await;
    assert_eq!(
        (reply.status, &reply.json()["was"], &reply.json()["dry_run"]),
        (StatusCode::OK, &json!("serving"), &json!(false))
    );
    let reply = post(&door, "/v1/leaves/leaf-0/drain?dry_run=true", "").await;
    assert_eq!((&reply.json()["was"], &reply.json()["already"]), (&json!("draining"), &json!(true)));
    // A leaf that drains serves all its rows.
    assert_eq!(door.get("/readyz").await.status, StatusCode::OK);
    let reply = post(&door, "/v1/leaves/leaf-2/stop", "").await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(reply.json()["error"]["hint"], "Did you mean `leaf-0`?");
    let reply = post(&door, "/v1/leaves/leaf-0/stop?now=1", "").await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["hint"]),
        (StatusCode::BAD_REQUEST, &json!("The only option is dry_run=true."))
    );
    assert_eq!(leaves[0].fake.epoch.load(Ordering::SeqCst), 1);
    let reply = post(&door, "/v1/leaves/leaf-0/stop", "").await;
    assert_eq!((reply.status, leaves[0].fake.epoch.load(Ordering::SeqCst)), (StatusCode::OK, 2));
}

#[tokio::test]
async fn a_rollout_is_planned_begun_and_shown() {
    let (door, _leaves) = Door::over(&[("leaf-0", 3), ("leaf-1", 1)]).await;
    assert_eq!(door.get("/v1/rollout").await.json(), json!({"rollout": null}));
    assert!(!door.get("/metrics").await.body.contains("gannet_rollout"));
    for (body, message) in [
        (
            "{\"max_unavailable\":\"0\"}",
            "max_unavailable `0` must be a number of leaves, such as 2, or a share of them, such as 2%",
        ),
        ("{\"leaves\":1}", "the body is not the settings of a rollout: unknown field `leaves`"),
    ] {
        let reply = post(&door, "/v1/rollout/start", body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.body);
        assert!(reply.json()["error"]["message"].as_str().unwrap().starts_with(message), "{}", reply.body);
    }
    let reply = post(&door, "/v1/rollout/start", "").await;
    assert_eq!(reply.status, StatusCode::CONFLICT);
    assert_eq!(
        (&reply.json()["error"]["code"], &reply.json()["error"]["message"]),
        (
            &json!("wrong_state"),
            &json!("answers would be 25.0 % complete while leaf-0 restarts, less than 95.0 %")
        )
    );
    let planned =
        post(&door, "/v1/rollout/start", "{\"min_completeness\":0.2,\"dry_run\":true}").await.json();
    let rollout = &planned["rollout"];
    assert_eq!(
        (&rollout["id"], &rollout["unavailable_max"], &rollout["machines"]),
        (&json!("r-1"), &json!(1), &json!(2))
    );
    assert_eq!(
        rollout["settings"],
        json!({"max_unavailable": "2%", "min_completeness": 0.2, "leaf_seconds_max": 600, "to": null, "allow_disk": false})
    );
    let leaf = &rollout["leaves"][0];
    assert_eq!(
        (&leaf["leaf"], &leaf["step"], &leaf["state"], &leaf["rows"]),
        (&json!("leaf-0"), &json!("waiting"), &json!("serving"), &json!(3))
    );
    assert_eq!(door.get("/v1/rollout").await.json(), json!({"rollout": null}));

    let reply = post(&door, "/v1/rollout/start", "{\"min_completeness\":0.2}").await;
    assert_eq!((reply.status, &reply.json()["rollout"]["state"]), (StatusCode::OK, &json!("running")));
    let reply = post(&door, "/v1/rollout/pause", "").await;
    assert_eq!(reply.json()["rollout"]["pause"], json!({"guard": null, "why": "somebody paused it"}));
    let metrics = door.get("/metrics").await.body;
    assert!(metrics.contains("gannet_rollout_state{state=\"paused\"} 1"), "{metrics}");
    let reply = post(&door, "/v1/rollout/abort", "").await;
    assert_eq!(reply.json()["rollout"]["state"], "aborted");
    let reply = post(&door, "/v1/rollout/resume", "{\"min_completeness\":2.0}").await;
    assert_eq!(reply.json()["error"]["message"], "min_completeness is 2, it must be between 0 and 1");
    assert_eq!(post(&door, "/v1/rollout/resume", "").await.status, StatusCode::CONFLICT);
    assert_eq!(door.get("/v1/rollout/start").await.status, StatusCode::METHOD_NOT_ALLOWED);
}
