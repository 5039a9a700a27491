//! What HTTP adds: `POST /api/orders` of the real server beside a server without an engine.

use std::{env, process::Stdio};

use anyhow::{Context, Result, ensure};
use flashsale_core::Admission;

use crate::{
    bare::Answer,
    child::{Server, beside_us, command},
    client::Got,
    report::{Reach, Row},
    rounds::alternate,
    shop::{Bench, Shop},
};

const CONNECTIONS: usize = 256;

fn orders(bench: &Bench) -> usize {
    bench.size(40_000, 800)
}

/// Orders that are all accepted.
pub(crate) async fn vs_bare(
    bench: &Bench,
    name: &'static str,
    reach: Reach,
    rate_limit: &str,
) -> Result<Row> {
    let orders = orders(bench);
    let real = async || {
        let shop = bench.shop(&[orders]).await?;
        let rate = real(bench, &shop, rate_limit, 202).await?;
        shop.expect_sold_out(orders).await?;
        shop.close().await?;
        Ok(rate)
    };
    let duel = alternate(name, bench.rounds, real, async || bare(bench, Answer::Accepted, 202).await).await?;
    Ok(Row::of_duel(name, reach, &duel, ["server", "bare", "requests/s"]))
}

/// Orders of a sale in which nothing is left.
pub(crate) async fn refusal_vs_bare(bench: &Bench, name: &'static str) -> Result<Row> {
    let real = async || {
        let shop = bench.shop(&[1]).await?;
        let first = shop.requests(0..1).remove(0);
        ensure!(matches!(shop.engine.reserve(first).await?, Admission::Admitted(_)), "nobody gets the one");
        let rate = real(bench, &shop, "off", 409).await?;
        shop.expect_sold_out(1).await?;
        shop.close().await?;
        Ok(rate)
    };
    let duel = alternate(name, bench.rounds, real, async || bare(bench, Answer::SoldOut, 409).await).await?;
    Ok(Row::of_duel(name, Reach::AtLeast(0.85), &duel, ["server", "bare", "requests/s"]))
}

/// The program that is shipped. It drains nothing meanwhile: what is measured is the admission.
async fn real(bench: &Bench, shop: &Shop, rate_limit: &str, status: u16) -> Result<f64> {
    let mut command = command(&beside_us("flashsale-server")?).await;
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"FLASHSALE_")) {
        command.env_remove(name);
    }
    command.env("REDIS_URL", bench.redis_url()).env("DATABASE_URL", &shop.database_url);
    command.args(["--listen", "127.0.0.1:0", "--drainers", "0", "--rate-limit", rate_limit]);
    // What is wrong is to be seen; what is told of every start is not.
    command.env("RUST_LOG", "warn");
    let server = Server::start(command).await?;
    let rate = ask(bench, &server, shop.products[0].get(), status).await?;
    server.stop().await?;
    Ok(rate)
}

async fn bare(bench: &Bench, answer: Answer, status: u16) -> Result<f64> {
    let mut command = command(&env::current_exe()?).await;
    command.args(["bare", if answer == Answer::Accepted { "accepted" } else { "sold-out" }]);
    let server = Server::start(command).await?;
    let rate = ask(bench, &server, 1, status).await?;
    server.stop().await?;
    Ok(rate)
}

/// Requests per second, all of which have to be answered with this status.
async fn ask(bench: &Bench, server: &Server, product: i64, status: u16) -> Result<f64> {
    let orders = orders(bench);
    let mut command = command(&env::current_exe()?).await;
    command.args(["client", "--address", &server.address]);
    for (name, value) in [
        ("--connections", CONNECTIONS.to_string()),
        ("--orders", orders.to_string()),
        ("--product", product.to_string()),
    ] {
        command.args([name, &value]);
    }
    let output = command.stderr(Stdio::inherit()).output().await?;
    ensure!(output.status.success(), "the client ended with {}", output.status);
    let got: Got = serde_json::from_slice(&output.stdout).context("what the client says")?;
    ensure!(got.statuses == [(status, orders)].into(), "all answers should be {status}: {:?}", got.statuses);
    Ok(got.per_second)
}
