//! Flags, variables, and what is written about them.

use std::{collections::BTreeSet, path::PathBuf, process::Stdio};

use clap::CommandFactory;
use flashsale_server::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::Command,
    time::timeout,
};

use crate::shop::BOUND;

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the program with these variables and no others, in an empty directory, until it ends.
async fn run(variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let nowhere = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flashsale-server"));
    command.args(arguments).env_clear().envs(variables.iter().copied());
    command.current_dir(nowhere.path()).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(BOUND, command.output()).await.expect("an end in time").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The flags that set something, and their variables.
fn settings() -> Vec<(String, String)> {
    let command = Config::command();
    let named = command.get_arguments().filter_map(|arg| {
        let variable = arg.get_env()?.to_str().unwrap().to_owned();
        Some((format!("--{}", arg.get_long().unwrap()), variable))
    });
    named.collect()
}

#[test]
fn every_flag_has_a_variable_a_description_and_a_group() {
    const NO_SETTINGS: [&str; 4] = ["help", "version", "print-config", "health-check"];
    for arg in Config::command().get_arguments() {
        let flag = arg.get_long().unwrap();
        assert!(arg.get_help().is_some_and(|help| !help.to_string().is_empty()), "--{flag} says nothing");
        if NO_SETTINGS.contains(&flag) {
            continue;
        }
        assert!(arg.get_help_heading().is_some(), "--{flag} is in no group");
        let variable = arg.get_env().unwrap_or_else(|| panic!("--{flag} has no variable"));
        let expected = match flag {
            "redis-url" | "database-url" => flag.replace('-', "_").to_uppercase(),
            "log-filter" => "RUST_LOG".to_owned(),
            _ => format!("FLASHSALE_{}", flag.replace('-', "_").to_uppercase()),
        };
        assert_eq!(variable.to_str(), Some(expected.as_str()), "--{flag}");
    }
}

#[tokio::test]
async fn help_shows_every_flag_under_its_group() {
    let help = run(&[], &["--help"]).await;
    assert_eq!(help.code, Some(0));
    for group in ["Stores:", "Serving:", "Who is asking:", "Limits:", "Browsers:", "Logs:", "Examples:"] {
        assert!(help.stdout.contains(&format!("\n{group}\n")), "no {group} in {}", help.stdout);
    }
    for (flag, variable) in settings() {
        // With a value, or without one.
        let shown = [format!("{flag} <"), format!("{flag}\n")];
        assert!(
            shown.iter().any(|shown| help.stdout.contains(shown))
                && help.stdout.contains(&format!("[env: {variable}")),
            "{flag}"
        );
    }
}

#[tokio::test]
async fn bad_values_are_refused_by_name_at_the_start() {
    let stores = [("REDIS_URL", "redis://localhost"), ("DATABASE_URL", "postgres://localhost/x")];
    for (flag, bad) in [
        ("--listen", "localhost"),
        ("--listen", "127.0.0.1"),
        ("--drainers", "65"),
        ("--drainers", "-1"),
        ("--check-every-seconds", "often"),
        ("--check-every-seconds", "3601"),
        ("--store-wait-seconds", "soon"),
        ("--allow-unsafe-redis", "perhaps"),
        ("--auth", "none"),
        ("--auth", "jwt"),
        ("--trusted-proxies", "everybody"),
        ("--rate-limit", "fast"),
        ("--rate-limit", ""),
        ("--orders-at-once", "0"),
        ("--requests-at-once", "0"),
        ("--drain-seconds", "601"),
        ("--metrics-listen", "9100"),
        ("--trusted-proxies", "::ffff:10.0.0.0/64"),
        ("--streams-per-client", "0"),
        ("--cors-origins", "https://shop.example/"),
        ("--cors-origins", "*,https://shop.example"),
        ("--log-format", "xml"),
        ("--log-filter", "flashsale=loud"),
    ] {
        let settings = settings();
        let (_, variable) = settings.iter().find(|(name, _)| name == flag).expect(flag);
        let by_flag = run(&stores, &[&format!("{flag}={bad}")]).await;
        let by_variable = run(&[stores[0], stores[1], (variable, bad)], &[]).await;
        for ended in [by_flag, by_variable] {
            assert_eq!(ended.code, Some(2), "{flag}={bad}: {}", ended.stderr);
            assert!(ended.stderr.contains("--"), "{flag}={bad}: {}", ended.stderr);
            // `--auth jwt` is right in itself: what is missing beside it is named.
            let named = if bad == "jwt" { "--jwt-" } else { flag };
            assert!(ended.stderr.contains(named), "{flag}={bad}: {}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn the_configuration_is_printed_without_secrets() {
    let variables = [
        ("REDIS_URL", "rediss://default:secret@redis.example/0"),
        ("DATABASE_URL", "postgres://shop@db.example/shop?password=secret"),
        ("FLASHSALE_DRAINERS", "3"),
        ("FLASHSALE_LISTEN", "0.0.0.0:5000,[::]:5001"),
    ];
    let printed =
        run(&variables, &["--print-config", "--listen", "127.0.0.1:7000", "--rate-limit=off"]).await;
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let lines: Vec<Vec<&str>> =
        printed.stdout.lines().map(|line| line.splitn(2, "  # ").map(str::trim).collect()).collect();
    for expected in [
        ["REDIS_URL=rediss://default@redis.example/0", "environment"],
        ["DATABASE_URL=postgres://shop@db.example/shop", "environment"],
        ["FLASHSALE_DRAINERS=3", "environment"],
        ["FLASHSALE_LISTEN=127.0.0.1:7000", "flag"],
        ["FLASHSALE_RATE_LIMIT=off", "flag"],
        ["FLASHSALE_AUTH=header", "default"],
    ] {
        assert!(lines.iter().any(|line| line == &expected), "no {expected:?} in\n{}", printed.stdout);
    }
    assert_eq!(lines.len(), settings().len());
    assert!(!printed.stdout.contains("secret"), "{}", printed.stdout);
    let nothing = run(&[], &["--print-config"]).await;
    assert_eq!(nothing.code, Some(0), "it needs no stores: {}", nothing.stderr);
    assert!(
        nothing.stdout.lines().any(|line| line.starts_with("REDIS_URL= ") && line.ends_with("# not given"))
    );
}

/// As a compose file says that there is none. A flag with a default has its own meaning of empty.
#[tokio::test]
async fn empty_variables_are_none() {
    let settings = settings();
    let optional = [
        "REDIS_URL",
        "DATABASE_URL",
        "FLASHSALE_METRICS_LISTEN",
        "FLASHSALE_JWT_ALGORITHM",
        "FLASHSALE_JWT_KEY",
        "FLASHSALE_JWT_ISSUER",
        "FLASHSALE_JWT_AUDIENCE",
        "FLASHSALE_JWT_LEEWAY_SECONDS",
    ];
    let mut variables: Vec<_> = optional.iter().map(|variable| (*variable, "")).collect();
    variables.push(("FLASHSALE_TRUSTED_PROXIES", ""));
    let printed = run(&variables, &["--print-config"]).await;
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let shown = |variable: &str| {
        let line = printed.stdout.lines().find(|line| line.starts_with(&format!("{variable}=")));
        line.expect(variable).split_once("= ").map(|(_, rest)| rest.trim().to_owned())
    };
    for variable in optional {
        assert!(settings.iter().any(|(_, known)| known == variable), "{variable}");
        assert_eq!(shown(variable).as_deref(), Some("# not given"), "{variable}");
    }
    assert_ne!(shown("FLASHSALE_TRUSTED_PROXIES"), None, "nobody is trusted:\n{}", printed.stdout);
    variables.push(("FLASHSALE_AUTH", "jwt"));
    let no_key = run(&variables, &[]).await;
    assert_eq!(no_key.code, Some(2));
    assert!(no_key.stderr.contains("--auth jwt needs --jwt-algorithm"), "{}", no_key.stderr);
}

#[tokio::test]
async fn a_health_check_says_whether_a_server_is_ready() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let check = async |status: &'static str| {
        let answers = async {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let count = connection.read(&mut request).await.unwrap();
            assert!(request[..count].starts_with(b"GET /readyz HTTP/1.0\r\n"));
            let answer = format!("HTTP/1.0 {status}\r\nContent-Length: 10\r\n\r\nredis: ok\n");
            connection.write_all(answer.as_bytes()).await.unwrap();
        };
        let variables = [("FLASHSALE_LISTEN", address.as_str())];
        tokio::join!(run(&variables, &["--health-check"]), answers).0
    };
    let ready = check("200 OK").await;
    assert_eq!((ready.code, ready.stdout.as_str()), (Some(0), "redis: ok\n"), "{}", ready.stderr);
    let not_ready = check("503 Service Unavailable").await;
    assert_eq!(not_ready.code, Some(1));
    assert!(not_ready.stderr.contains("answers 503\nredis: ok"), "{}", not_ready.stderr);
    drop(listener);
    let nobody = run(&[], &["--health-check", &format!("http://{address}")]).await;
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("does not answer"), "{}", nobody.stderr);
    assert_eq!(run(&[], &["--health-check", "--listen", "127.0.0.1:0"]).await.code, Some(2));
}

#[test]
fn the_table_of_flags_is_that_of_the_program() {
    let operations = read("docs/OPERATIONS.md");
    let rows = operations.lines().filter(|line| line.starts_with("| `--") && line.matches('|').count() == 5);
    let quoted = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(|code| code.split(' ').next().unwrap().to_owned()).collect()
    };
    let mut written = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        let (flags, variables) = (quoted(cells[1]), quoted(cells[2]));
        assert_eq!(flags.len(), variables.len(), "{row}");
        written.extend(flags.into_iter().zip(variables));
    }
    assert_eq!(written, settings().into_iter().collect());
}

#[test]
fn the_containers_are_as_promised() {
    let compose = read("compose.yaml");
    let known: BTreeSet<_> = settings().into_iter().map(|(_, variable)| variable).collect();
    let variables = compose.lines().filter_map(|line| line.trim().split_once(": ").map(|(name, _)| name));
    let is_variable = |name: &&str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let mut set = variables.filter(is_variable).filter(|name| !name.starts_with("POSTGRES_")).peekable();
    assert!(set.peek().is_some());
    for variable in set {
        assert!(known.contains(variable), "compose.yaml sets {variable}, which no flag has");
    }
    for promised in [
        "image: postgres:16",
        "image: redis:7",
        "--maxmemory-policy noeviction",
        "--appendonly yes",
        "FLASHSALE_LISTEN: 0.0.0.0:5000",
        "127.0.0.1:${FLASHSALE_PORT:-5000}:5000",
        "condition: service_healthy",
    ] {
        assert!(compose.contains(promised), "compose.yaml has no {promised:?}");
    }
    // The network that is trusted is the network that there is.
    let subnet = "${FLASHSALE_SUBNET:-10.213.0.0/24}";
    assert_eq!(compose.matches(subnet).count(), 2);
    let dockerfile = read("Dockerfile");
    for promised in [
        "flashsale-server",
        "flashsale-cli",
        "flashsale-loadtest",
        "--health-check",
        "nonroot",
        "EXPOSE 5000",
    ] {
        assert!(dockerfile.contains(promised), "the Dockerfile has no {promised:?}");
    }
    let rust = concat!("FROM rust:", env!("CARGO_PKG_RUST_VERSION"), "-");
    assert!(dockerfile.contains(rust), "another Rust than Cargo.toml asks for");
}
