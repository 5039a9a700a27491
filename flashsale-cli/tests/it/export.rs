//! `flashsale orders export`: all orders, whole files, and nothing of what was interrupted.

use std::{fs, path::Path};

use flashsale_stack::{Stack, StackOptions};
use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::{Executor, PgPool};

use crate::program::{Ran, Running, folder, on, wait_until};

const HEADER: &str = "order_id,sale_id,user_id,idempotency_key,status,failure_reason,duplicate_of,total_amount,\
                      currency,created_at,recorded_at,product_id,product_name,quantity,unit_price,line_total\r\n";

/// The demo catalogue with this many recorded orders of two items each, which nobody has bought.
async fn recorded(orders: u32) -> (Stack, PgPool) {
    let stack = Stack::start(StackOptions::default()).await.expect("a stack");
    Ran::of(&mut on(&stack, &["seed"])).expect(0);
    let pg = PgPool::connect(stack.database_url()).await.expect("PostgreSQL");
    // An order id ends with its sale, and is of version 8.
    let rows = format!(
        "INSERT INTO orders (id, sale_id, user_id, idempotency_key, fingerprint, epoch, seq, status, failure_reason,
             total, created_at)
         SELECT (lpad(to_hex(n), 8, '0') || '-0000-8000-8000-000000000100')::uuid, 1,
             CASE WHEN n = 1 THEN '+49123' ELSE 'user-' || n % 100 END, '=' || n, 'f', 1, n,
             CASE WHEN n % 10 = 0 THEN 'Failed' ELSE 'Confirmed' END,
             CASE WHEN n % 10 = 0 THEN 'sold-out' END, 42998, now()
         FROM generate_series(1, {orders}) AS n"
    );
    pg.execute(sqlx::AssertSqlSafe(rows)).await.expect("orders");
    pg.execute(
        "INSERT INTO order_items SELECT id, product, 1, 24999 FROM orders, unnest(ARRAY[1, 3]) AS product;
         UPDATE products SET name = 'A \"good\" one, really' WHERE id = 1",
    )
    .await
    .expect("items");
    (stack, pg)
}

fn files_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.into_string().expect("text")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_what_is_recorded() {
    let (stack, pg) = recorded(12).await;
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));
    let csv = run(&["orders", "export"]).expect(0);
    assert!(csv.starts_with(HEADER), "{csv}");
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines.len(), 1 + 2 * 12, "a line for each item");
    // Newest first; the name has a comma and quotes in it, and the key must not be computed.
    assert!(
        lines[1].starts_with("0000000c-0000-8000-8000-000000000100,1,user-12,'=12,Confirmed,,,429.98,USD,")
    );
    assert!(lines[1].ends_with(",1,\"A \"\"good\"\" one, really\",1,249.99,249.99"), "{}", lines[1]);
    assert!(lines[23].contains(",'+49123,'=1,"), "{}", lines[23]);

    let json =
        run(&["orders", "export", "--format", "jsonl", "--status", "failed", "--sale", "demo"]).expect(0);
    let orders: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(orders.len(), 1);
    assert_eq!(
        (&orders[0]["idempotencyKey"], &orders[0]["failureReason"]),
        (&"=10".into(), &"sold-out".into())
    );
    assert_eq!(orders[0]["items"].as_array().map(Vec::len), Some(2));
    let of_user = run(&["orders", "export", "--user", "+49123", "--format", "jsonl"]).expect(0);
    assert_eq!(of_user.lines().count(), 1);
    assert_eq!(run(&["orders", "export", "--sale", "77"]).code, Some(1));
    let csv = run(&["orders", "export", "--output", "json"]);
    assert!(csv.code == Some(2) && csv.stderr.contains("--format jsonl"), "{csv:#?}");
    assert!(run(&["orders", "export", "--help"]).expect(0).contains("without asking"));
    pg.close().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_appears_whole_and_replaces_nothing_unasked() {
    let (stack, pg) = recorded(3).await;
    let run = |arguments: &[&str]| Ran::of(&mut on(&stack, arguments));
    let folder = folder();
    let file = folder.path().join("orders.csv");
    let path = file.to_str().expect("text");
    let done = run(&["orders", "export", "--file", path, "--output", "json"]).json();
    assert_eq!((&done["orders"], &done["file"]), (&3.into(), &path.into()));
    let written = fs::read_to_string(&file).expect("the file");
    assert_eq!(written, run(&["orders", "export"]).expect(0));

    fs::write(&file, "precious").expect("a file");
    let refused = run(&["orders", "export", "--file", path]);
    assert!(refused.code == Some(2) && refused.stderr.contains("--yes"), "{refused:#?}");
    assert_eq!(fs::read_to_string(&file).expect("the file"), "precious");
    run(&["orders", "export", "--file", path, "--yes"]).expect(0);
    assert_eq!(fs::read_to_string(&file).expect("the file"), written);

    // A device that is replaced by a file is gone.
    for (path, code) in [("/dev/null", 2), ("/", 2), ("/nowhere/orders.csv", 2)] {
        let ran = run(&["orders", "export", "--file", path, "--yes"]);
        assert_eq!(ran.code, Some(code), "{path}: {ran:#?}");
        assert!(ran.stderr.contains(path) && !ran.stderr.contains(".partial"), "{ran:#?}");
    }
    assert_eq!(files_in(folder.path()), ["orders.csv"]);
    pg.close().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_export_leaves_no_file() {
    let (stack, pg) = recorded(3).await;
    let folder = folder();
    let file = folder.path().join("orders.csv");
    // PostgreSQL does not answer, for as long as it takes.
    let mut lock = pg.begin().await.expect("a transaction");
    lock.execute("LOCK TABLE order_items").await.expect("the lock");
    let arguments = ["orders", "export", "--file", file.to_str().expect("text")];
    let export = Running::start(&mut on(&stack, &arguments));
    wait_until("the export is at work", || {
        files_in(folder.path())
            .iter()
            .any(|name| name.starts_with(".orders.csv.") && name.ends_with(".partial"))
    });
    let ran = export.end(Signal::SIGINT);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("was not written"), "{ran:#?}");
    assert!(files_in(folder.path()).is_empty());
    lock.rollback().await.expect("unlocked");
    pg.close().await;
    stack.stop().await;
}

/// 20,000 orders are 40,000 lines and some 7 MB: what is streamed does not grow with them.
#[tokio::test(flavor = "multi_thread")]
#[cfg(target_os = "linux")]
async fn many_orders_are_streamed() {
    let (stack, pg) = recorded(20_000).await;
    let mut export = Running::start(&mut on(&stack, &["orders", "export", "--format", "jsonl"]));
    // Nobody reads more, so that it waits in the middle.
    let first = export.lines_with("\"id\"").pop().expect("an order");
    assert!(first.contains("00004e20-0000-8000-8000-000000000100"), "the newest: {first}");
    let status = || fs::read_to_string(format!("/proc/{}/status", export.pid())).expect("its status");
    wait_until("it waits for its reader", || status().contains("State:\tS"));
    let kb =
        status().lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().split(' ').next()?.parse().ok());
    let kb: u64 = kb.expect("its largest size");
    let ran = export.read_to_its_end();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(1 + ran.stdout.lines().count(), 20_000);
    assert!(kb < 60_000, "{kb} kB");

    // Whoever has seen enough is no failure.
    let export = Running::start(&mut on(&stack, &["orders", "export"]));
    let ran = export.read_a_line();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:#?}");
    pg.close().await;
    stack.stop().await;
}
