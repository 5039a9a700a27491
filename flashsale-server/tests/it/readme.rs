//! The session of the README, run as it stands there: what it promises is what one gets.

use std::{process::Stdio, time::Duration};

use chrono::{TimeDelta, Utc};
use flashsale_core::{Money, NewProduct, NewSale};
use tokio::{process::Command, time::timeout};

use crate::shop::{Server, Shop, policy, until};

const README: &str = include_str!("../../../README.md");
const ADDRESS: &str = "http://127.0.0.1:5000";

/// A block of commands, and what the README says they print.
struct Step {
    commands: String,
    promised: String,
}

/// The blocks of "Try it" that use curl.
fn session() -> Vec<Step> {
    let (_, section) = README.split_once("\n## Try it\n").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("the next section");
    let mut steps = Vec::<Step>::new();
    let mut of_a_client = false;
    // Between the fences: text, block, text, block, …
    for block in section.split("```").skip(1).step_by(2) {
        match block.strip_prefix("sh\n") {
            Some(commands) => {
                of_a_client = commands.contains("curl ");
                if of_a_client {
                    steps.push(Step { commands: commands.to_owned(), promised: String::new() });
                }
            }
            None if of_a_client => steps.last_mut().expect("commands").promised.push_str(block),
            None => {}
        }
    }
    steps
}

/// What must be in the output: lines of the head, and members of the JSON, but for what is left out with `…`.
fn fragments(promised: &str) -> impl Iterator<Item = String> {
    let parts = promised.lines().flat_map(|line| line.split([',', '{', '}', '[', ']']));
    parts.map(without_spaces).filter(|part| !part.is_empty() && !part.contains('…'))
}

fn without_spaces(text: &str) -> String {
    text.split_whitespace().collect()
}

async fn run(commands: &str) -> String {
    let mut shell = Command::new("sh");
    shell.args(["-ec", commands]).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(30), shell.output()).await.expect("an end in time").expect("sh");
    assert!(output.status.success(), "{commands}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_session_of_the_readme_works_as_it_stands_there() {
    let shop = Shop::new().await;
    let created = shop.engine.operator().create_sale(&demo_sale()).await;
    created.expect("the demo sale");
    let server = Server::start(&shop, policy()).await;
    until("the sale is loaded", async || {
        let answer = run(&format!("curl -s {}/api/flashsale/active", server.buyers.url)).await;
        answer.contains("stockRemaining").then_some(())
    })
    .await;

    let steps = session();
    assert!(steps.len() >= 7, "list, cart, order, repeat, watch, history, refusal");
    for Step { commands, promised } in steps {
        let output = run(&commands.replace(ADDRESS, &server.buyers.url)).await;
        let found = without_spaces(&output);
        for fragment in fragments(&promised) {
            assert!(found.contains(&fragment), "{commands}\npromises {fragment}, and prints\n{output}");
        }
    }
    server.stop().await;
}

/// As `flashsale seed` creates it.
fn demo_sale() -> NewSale {
    let usd = "USD".parse().unwrap();
    let product = |(id, name, description, original_price, sale_price, stock, per_user_limit): (
        i64,
        &str,
        &str,
        _,
        _,
        u32,
        u32,
    )| NewProduct {
        id: Some(id.try_into().unwrap()),
        name: name.to_owned(),
        description: description.to_owned(),
        image_url: String::new(),
        original_price: Money::from_minor(original_price, usd),
        sale_price: Money::from_minor(sale_price, usd),
        stock,
        per_user_limit,
    };
    let products = [
        (
            1,
            "Sony WH-1000XM5 Headphones",
            "Wireless headphones with noise cancelling",
            39_999,
            24_999,
            500,
            3,
        ),
        (2, "Samsung Galaxy S24 Ultra", "Smartphone, 256 GB", 129_999, 89_999, 200, 1),
        (3, "Apple AirPods Pro (3rd Gen)", "Wireless earbuds with charging case", 24_999, 17_999, 1_000, 5),
    ];
    NewSale {
        slug: "demo".to_owned(),
        name: "Demo flash sale".to_owned(),
        currency: usd,
        starts_at: Utc::now() - TimeDelta::hours(1),
        ends_at: Utc::now() + TimeDelta::hours(1),
        products: products.map(product).into(),
    }
}
