//! A history is read in pages.

use serde_json::json;

use crate::shop::{Answer, Server, Shop, ask, policy};

/// Pages are walked by their links while orders come in, several of them within a millisecond.
#[tokio::test]
async fn a_history_is_walked_page_by_page() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(1_000, 1_000)]).await;
    let server = Server::start(&shop, policy()).await;
    let buyers = &server.buyers;
    shop.loaded(&sale).await;
    let buy = async |user: &'static str, keys: std::ops::Range<u32>| {
        let line = &[sale.line(0, 1)];
        let orders = keys.map(async |key| buyers.buys(user, &format!("k-{key}"), line).await);
        let ids = futures::future::join_all(orders).await;
        for id in &ids {
            assert_eq!(buyers.outcome(id).await, "Confirmed");
        }
        ids
    };
    let page = async |path: &str| ask(buyers.get(path).header("x-user-id", "ann")).await;
    let ids = |answer: &Answer| -> Vec<String> {
        let orders = answer.json.as_array().unwrap().iter();
        orders.map(|order| order["id"].as_str().unwrap().to_owned()).collect()
    };
    let next = |answer: &Answer| {
        let link = answer.header("link")?.strip_suffix(r#">; rel="next""#).expect("a link to the next page");
        Some(link.strip_prefix('<').unwrap().to_owned())
    };

    let mut at_start = buy("ann", 0..23).await;
    buy("bob", 0..3).await;
    at_start.sort();
    at_start.reverse();

    let (mut seen, mut pages, mut path) = (Vec::new(), 0, "/api/orders/ann?limit=5".to_owned());
    loop {
        let answer = page(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        for order in answer.json.as_array().unwrap() {
            assert_eq!(order["userId"], "ann");
            assert_eq!(order["items"][0]["quantity"], 1);
        }
        seen.extend(ids(&answer));
        pages += 1;
        // More orders come in before each further page.
        buy("ann", 100 * pages..100 * pages + 4).await;
        let Some(link) = next(&answer) else { break };
        path = link;
    }
    assert_eq!((seen, pages), (at_start.clone(), 5));

    // A last page that is just full has no link, nor has an empty one.
    let cursor = at_start[12].clone();
    let answer = page(&format!("/api/orders/ann?limit=10&before={cursor}")).await;
    assert_eq!((ids(&answer), next(&answer)), (at_start[13..].to_vec(), None));
    let answer = page(&format!("/api/orders/ann?limit=9&before={cursor}")).await;
    assert_eq!(ids(&answer), at_start[13..22]);
    assert!(next(&answer).unwrap().contains(&at_start[21]));
    let oldest = at_start.last().unwrap();
    let answer = page(&format!("/api/orders/ann?before={oldest}")).await;
    assert_eq!((&answer.json, next(&answer)), (&json!([]), None));
    // The page that is not asked for in any size.
    let answer = page("/api/orders/ann").await;
    assert_eq!(ids(&answer).len(), 20);
    assert!(next(&answer).unwrap().starts_with("/api/orders/ann?limit=20&before="));

    for bad in ["limit=0", "limit=101", "limit=", "limit=-1", "limit=5&limit=6", "limit=%ff"] {
        page(&format!("/api/orders/ann?{bad}")).await.names("limit");
    }
    for bad in ["before=x", "before=", "before=00000000-0000-0000-0000-000000000000"] {
        page(&format!("/api/orders/ann?{bad}")).await.names("before");
    }
    shop.audit(&sale).await;
    server.stop().await;
}
