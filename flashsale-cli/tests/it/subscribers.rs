//! Who is told of final orders: listed, and removed for good.

use crate::{
    daily_work::{engine, seeded_stack},
    program::{Ran, on},
};

#[tokio::test(flavor = "multi_thread")]
async fn consumers_are_listed_and_removed_only_with_consent() {
    let stack = seeded_stack().await;
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));
    assert!(run(&["subscribers", "list"]).expect(0).contains("nobody"));

    let engine = engine(&stack).await;
    let _mailer = engine.notifier("mailer", |_| async { Ok::<_, String>(()) }).await.unwrap();
    let listed = run(&["subscribers", "list", "--output", "json"]).json();
    assert_eq!((&listed[0]["name"], &listed[0]["waiting"]), (&"mailer".into(), &0.into()), "{listed}");

    let refused = run(&["subscribers", "remove", "mailer"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("--yes"), "{refused:#?}");
    let unknown = run(&["subscribers", "remove", "mialer", "--yes"]);
    assert_eq!(unknown.code, Some(2), "{unknown:#?}");
    assert!(unknown.stderr.contains("there are: mailer"), "{unknown:#?}");
    run(&["subscribers", "remove", "mailer", "--dry-run"]).expect(0);
    assert_eq!(run(&["subscribers", "list", "--output", "json"]).json()[0]["name"], "mailer");

    run(&["subscribers", "remove", "mailer", "--yes"]).expect(0);
    assert!(run(&["subscribers", "list"]).expect(0).contains("nobody"));
    assert_eq!(run(&["log", "--output", "json"]).json()[0]["what"], "unsubscribe");
    engine.close().await;
    stack.stop().await;
}
