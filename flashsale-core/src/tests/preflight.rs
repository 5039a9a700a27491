//! What a preflight reads of real stores. How it judges is tested where it does.

use flashsale_stack::{Stack, StackOptions};

use super::{
    metrics::{recorder, value},
    *,
};
use crate::{Finding, Verdict, ledger, test_support};

async fn findings(redis_url: &str, database_url: &str) -> Vec<Finding> {
    let engine = Engine::connect(EngineConfig::new(redis_url, database_url)).await.unwrap();
    let findings = engine.preflight().await;
    engine.close().await;
    findings
}

fn of<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    let found = findings.iter().find(|finding| finding.check == check);
    found.unwrap_or_else(|| panic!("no {check} in {findings:#?}"))
}

#[tokio::test]
async fn of_sound_stores_there_is_nothing_to_say() {
    let url = test_support::database().await;
    let findings = findings(test_support::stack().await.redis_url(), &url).await;
    for finding in &findings {
        // The tests beside this one have connections too.
        let busy = finding.check == "postgres connections";
        assert!(finding.verdict == Verdict::Ok || busy, "{finding:?}");
    }
    assert_eq!(findings.len(), 11, "{findings:#?}");
    assert_eq!(of(&findings, "redis persistence").found, "appendonly, appendfsync everysec");
}

/// Eight connections beside the pool for requests: four for draining, and one for each lock of a load or the auditor.
#[tokio::test]
async fn connections_are_counted_with_the_pool_that_is_configured() {
    let mut config =
        EngineConfig::new(test_support::stack().await.redis_url(), test_support::database().await);
    config.postgres_connections = 1_000;
    let engine = Engine::connect(config).await.unwrap();
    let findings = engine.preflight().await;
    engine.close().await;
    let finding = of(&findings, "postgres connections");
    assert_eq!(finding.verdict, Verdict::Warning);
    assert!(finding.found.ends_with(" are free: a server or worker may take 1008"), "{finding:?}");
}

/// Many a service's user may do all but what is dangerous. Of that our scripts need INFO.
#[tokio::test]
async fn what_redis_does_not_allow_is_named() {
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    let client = redis::Client::open(stack.redis_url()).unwrap();
    let mut admin = client.get_multiplexed_async_connection().await.unwrap();
    let mut url = stack.redis_url().to_owned();
    url.insert_str("redis://".len(), "shop:secret@");
    let mut allowed = async |rules: &str| {
        let words = ["SETUSER", "shop", "reset", "on", ">secret"].into_iter().chain(rules.split(' '));
        redis::cmd("ACL").arg(words.collect::<Vec<_>>()).exec_async(&mut admin).await.unwrap();
        redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut admin).await.unwrap();
        findings(&url, stack.database_url()).await
    };

    let enough = allowed("~fs:* +@all -@dangerous +info").await;
    for finding in enough.iter().filter(|finding| finding.check.starts_with("redis")) {
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
    }
    for (rules, check, said) in [
        (
            "~fs:* +@all -xadd -xgroup|destroy -pexpire",
            "redis permissions",
            "not allowed: XADD, XGROUP DESTROY, PEXPIRE",
        ),
        ("~fs:{* +@all", "redis permissions", "scripts do not run: "),
        ("~fs:* +@all -evalsha", "redis permissions", "scripts do not run: "),
        ("~fs:* +@all -script|load", "redis permissions", "scripts do not run: "),
        ("~fs:* +@all -info", "redis", "Redis refused: "),
    ] {
        let findings = allowed(rules).await;
        let finding = of(&findings, check);
        assert_eq!(finding.verdict, Verdict::Refused, "{rules}: {finding:?}");
        assert!(finding.found.starts_with(said), "{rules}: {finding:?}");
    }
    stack.stop().await;
}

#[tokio::test]
async fn a_newer_programs_tables_are_refused() {
    let url = test_support::database().await;
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'of tomorrow', true, 'x', 1)";
    sqlx::query(newer).execute(&pool).await.unwrap();
    pool.close().await;
    let findings = findings(test_support::stack().await.redis_url(), &url).await;
    let tables = of(&findings, "postgres tables");
    assert_eq!((tables.verdict, tables.remedy.as_deref()), (Verdict::Refused, Some("upgrade this program")));
}

/// An order that was shown as confirmed must survive a crash, whatever the server's default is.
#[tokio::test]
async fn every_session_commits_durably() {
    let url = test_support::database().await;
    let name = url.rsplit('/').next().unwrap();
    let config = config(url.clone()).await;
    for (default, ours) in [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")] {
        let pool = sqlx::PgPool::connect(&url).await.unwrap();
        let set = format!("ALTER DATABASE {name} SET synchronous_commit = {default}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&pool).await.unwrap();
        pool.close().await;

        let engine = Engine::connect(config.clone()).await.unwrap();
        let draining = ledger::drain_pool(url.parse().unwrap());
        for pool in [&engine.stores().pg, &draining] {
            let commit: String = sqlx::query_scalar("SHOW synchronous_commit").fetch_one(pool).await.unwrap();
            assert_eq!(commit, ours, "where the default is {default}");
        }
        let found = of(&engine.preflight().await, "postgres durability").found.clone();
        assert!(found.starts_with(&format!("synchronous_commit {default}")), "{found}");
        draining.close().await;
        engine.close().await;
    }
}

#[tokio::test]
async fn a_store_that_is_away_hides_nothing_of_the_other() {
    let url = test_support::database().await;
    let redis_url = test_support::stack().await.redis_url();
    let redis_away = findings("redis://127.0.0.1:1/", &url).await;
    assert_eq!(of(&redis_away, "redis").verdict, Verdict::Away);
    assert_eq!(of(&redis_away, "postgres role").verdict, Verdict::Ok);
    let postgres_away = findings(redis_url, "postgres://x@127.0.0.1:1/x").await;
    assert_eq!(of(&postgres_away, "postgres").verdict, Verdict::Away);
    assert_eq!(of(&postgres_away, "redis role").verdict, Verdict::Ok);
    // Waiting does not make a database.
    let no_database = findings(redis_url, &format!("{url}_of_nobody")).await;
    assert_eq!(of(&no_database, "postgres").verdict, Verdict::Refused);
}

/// Somebody may set it in the middle of a sale.
#[tokio::test]
async fn a_setting_that_changes_later_is_shown_by_the_monitor() {
    let (recorder, handle) = recorder();
    let _here = ::metrics::set_default_local_recorder(&recorder);
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    let engine = Engine::connect(EngineConfig::new(stack.redis_url(), stack.database_url())).await.unwrap();
    engine.migrate().await.unwrap();
    let client = redis::Client::open(stack.redis_url()).unwrap();
    let mut admin = client.get_multiplexed_async_connection().await.unwrap();
    let monitor = engine.monitor();
    for (policy, fit) in [("noeviction", 1.0), ("allkeys-lru", 0.0), ("noeviction", 1.0)] {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("maxmemory-policy").arg(policy).exec_async(&mut admin).await.unwrap();
        monitor.check_once().await;
        monitor.observe_once().await.unwrap();
        assert_eq!(value(&handle, "flashsale_setting_fit{check=\"redis eviction\"}"), Some(fit), "{policy}");
    }
    engine.close().await;
    stack.stop().await;
}
