//! `flashsale migrate` and `flashsale seed`, and the sales that come of it.

use flashsale_stack::{Stack, StackOptions};

use crate::program::{Ran, folder, on};

#[tokio::test]
async fn seeding_twice_changes_nothing() {
    let stack = Stack::start(StackOptions::default()).await.expect("a stack");
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));

    let unmigrated = run(&["sales", "list"]);
    assert_eq!(unmigrated.code, Some(1), "{unmigrated:#?}");
    assert!(unmigrated.stderr.contains("flashsale migrate"), "{unmigrated:#?}");
    run(&["migrate"]).expect(0);
    assert!(run(&["sales", "list"]).expect(0).contains("no sales"));

    let planned = run(&["seed", "--dry-run", "--output", "json"]).json();
    assert_eq!((&planned["exists"], &planned["storesAsked"]), (&serde_json::Value::Null, &true.into()));
    assert!(run(&["sales", "list"]).expect(0).contains("no sales"));

    assert!(run(&["seed"]).expect(0).contains("created sale 1 (demo) with 3 products"));
    let before = run(&["sales", "show", "1", "--output", "json"]).json();
    let again = run(&["seed", "--output", "json"]).json();
    assert_eq!(again, serde_json::json!({ "sale": 1, "slug": "demo", "created": false }));
    assert!(run(&["seed"]).expect(0).contains("nothing was changed"));
    assert!(run(&["seed", "--dry-run"]).expect(0).contains("sale 1 has this slug already"));
    assert_eq!(run(&["sales", "show", "1", "--output", "json"]).json(), before);

    let ids: Vec<_> =
        before["products"].as_array().expect("products").iter().map(|product| &product["id"]).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(before["products"][0]["salePrice"], "249.99");
    assert_eq!(before["products"][1]["stock"], 200);
    stack.stop().await;
}

#[tokio::test]
async fn a_file_adds_a_sale_of_its_own() {
    let stack = Stack::start(StackOptions::default()).await.expect("a stack");
    let folder = folder();
    let file = folder.path().join("sale.toml");
    std::fs::write(&file, SALE).expect("a sale file");
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));

    // Without stores, too.
    let odd = SALE.replace("per_user_limit = 1", "per_user_limit = 11");
    let unasked = folder.path().join("odd.toml");
    std::fs::write(&unasked, odd).expect("a sale file");
    let planned = crate::program::alone(&["seed", unasked.to_str().expect("text"), "--dry-run"]);
    assert!(planned.stderr.contains("may buy 11, and there are 10"), "{planned:#?}");
    assert!(planned.stderr.contains("is not known: no stores to use"), "{planned:#?}");
    assert!(planned.expect(0).contains("-18 %"));

    // Without `migrate` before it.
    run(&["seed"]).expect(0);
    let seeded = run(&["seed", file.to_str().expect("text"), "--output", "json"]).json();
    assert_eq!(seeded, serde_json::json!({ "sale": 2, "slug": "tokyo", "created": true }));
    let sales = run(&["sales", "list", "--output", "json"]).json();
    let slugs: Vec<_> = sales.as_array().expect("sales").iter().map(|sale| &sale["slug"]).collect();
    assert_eq!(slugs, ["demo", "tokyo"]);
    assert_eq!(sales[1]["products"][0]["originalPrice"], "12000");

    let missing = run(&["sales", "show", "77"]);
    assert_eq!(missing.code, Some(1), "{missing:#?}");
    assert!(missing.stderr.contains("not found"), "{missing:#?}");
    stack.stop().await;
}

const SALE: &str = r#"
slug = "tokyo"
name = "Tokyo"
currency = "JPY"
starts_at = 2025-01-01T00:00:00+09:00
ends_at = 2099-01-01T00:00:00+09:00

[[products]]
name = "A bowl"
original_price = "12000"
sale_price = "9800"
stock = 10
per_user_limit = 1
"#;
