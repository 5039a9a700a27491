//! `flashsale migrate` and `flashsale seed`, and the sales that come of it.

use std::path::Path;

use flashsale_stack::{Stack, StackOptions};

use crate::program::{Ran, folder, on};

/// How every dry run ends.
pub(crate) const UNCHANGED: &str = "Dry run: nothing was changed.";

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
    assert_eq!(again, serde_json::json!({ "sale": 1, "slug": "demo", "created": false, "differences": [] }));
    assert!(run(&["seed"]).expect(0).contains("nothing was changed"));
    let planned = run(&["seed", "--dry-run"]).expect(0);
    assert!(planned.contains("sale 1 has this slug already") && planned.contains(UNCHANGED), "{planned}");
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
    assert_eq!(seeded, serde_json::json!({ "sale": 2, "slug": "tokyo", "created": true, "differences": [] }));
    let sales = run(&["sales", "list", "--output", "json"]).json();
    let slugs: Vec<_> = sales.as_array().expect("sales").iter().map(|sale| &sale["slug"]).collect();
    assert_eq!(slugs, ["demo", "tokyo"]);
    assert_eq!(sales[1]["products"][0]["originalPrice"], "12000");

    a_file_that_was_edited_is_told(&stack, folder.path());

    let missing = run(&["sales", "show", "77"]);
    assert_eq!(missing.code, Some(1), "{missing:#?}");
    assert!(missing.stderr.contains("not found"), "{missing:#?}");
    stack.stop().await;
}

fn a_file_that_was_edited_is_told(stack: &Stack, folder: &Path) {
    let file = folder.join("edited.toml");
    let file = file.to_str().expect("text");
    let seed = |text: &str, more: &[&str]| {
        std::fs::write(file, text).expect("a sale file");
        Ran::of(&mut on(stack, &[&["seed", file][..], more].concat()))
    };
    let run = |arguments: &[&str]| Ran::of(&mut on(stack, arguments)).expect(0);
    let product = run(&["sales", "show", "tokyo", "--output", "json"]);
    let product: serde_json::Value = serde_json::from_str(&product).expect("JSON");
    let product = product["products"][0]["id"].to_string();
    let edited =
        SALE.replace("stock = 10", "stock = 7").replace("9800", "9900").replace("2099-01", "2098-01");
    for more in [&[][..], &["--dry-run"]] {
        let told = seed(&edited, more);
        for said in [
            &format!(
                "is 7 in the file and 10 in the sale: `flashsale sales reduce 2 {product} 3` changes it"
            ),
            "`flashsale sales window 2 --ends-at 2097-12-31T15:00:00Z` moves it",
            &format!("the sale price of product {product} is \"9900\" in the file and \"9800\" in the sale"),
        ] {
            assert!(told.stderr.contains(said), "{said}: {told:#?}");
        }
        assert_eq!(told.stderr.matches(" in the file and ").count(), 3, "{told:#?}");
        assert_eq!(told.code, Some(0), "{told:#?}");
    }
    let renamed = seed(&SALE.replace("A bowl", "A cup"), &[]);
    for said in ["A cup is only in the file", &format!("product {product} (A bowl) is only in the sale")] {
        assert!(renamed.stderr.contains(said), "{said}: {renamed:#?}");
    }
    // What it says mends what it says.
    run(&["sales", "window", "2", "--ends-at", "2097-12-31T15:00:00Z"]);
    run(&["sales", "reduce", "2", &product, "3", "--yes"]);
    let mended = seed(&edited.replace("9900", "9800"), &["--output", "json"]).json();
    assert_eq!(mended["differences"], serde_json::json!([]), "{mended}");
    // The file is as it was, and the sale is not.
    let since = seed(SALE, &[]);
    assert!(since.stderr.contains("10 in the file and 7 in the sale: it was changed since"), "{since:#?}");

    // What would be refused is refused without being done, too.
    let other = SALE.replace("tokyo", "osaka").replace("[[products]]", "[[products]]\nid = 1");
    let (planned, refused) = (seed(&other, &["--dry-run"]), seed(&other, &[]));
    for ran in [&planned, &refused] {
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        assert!(ran.stderr.contains("product 1 belongs to sale 1"), "{ran:#?}");
    }
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
