//! The command people type. Parses the words, installs the one crypto provider and the log, and hands over to
//! one module per command; what each returns becomes the exit code.

mod admin;
mod bench;
mod broker;
mod build;
mod cards;
mod demo;
mod exit;
mod flash;
mod image;
mod input;
mod keys;
mod notify;
mod remote;
mod report;
mod s3;
mod services;
mod sim;
mod store;
mod tls;
mod trust;
mod up;
mod update;
mod web;

use clap::{Parser, Subcommand};

/// Makes SD cards with offline content: from an order to verified cards.
#[derive(Parser)]
#[command(name = "cardshop", version, arg_required_else_help = true)]
struct Cli {
    /// Print one JSON object per event instead of text.
    #[arg(long, global = true, env = "CARDSHOP_JSON")]
    json: bool,
    /// How lines of the log are written to standard error; what is logged says RUST_LOG, by default warnings.
    #[arg(long, global = true, env = "CARDSHOP_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, with the request's id where there is one.
    Json,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Demo),
    Up(Box<up::Up>),
    Scheduler(Box<up::SchedulerOnly>),
    Broker(broker::BrokerOnly),
    Warehouse(up::WarehouseOnly),
    Creator(up::CreatorOnly),
    Index(image::IndexCommand),
    Bench(bench::Bench),
    Build(build::Build),
    Write(cards::Write),
    Verify(cards::VerifyCommand),
    Probe(cards::Probe),
    Card(cards::Card),
    Flash(flash::Flash),
    Admin(admin::Admin),
    Sim(sim::Sim),
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    start_log(cli.log_format);
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("nothing else installs a crypto provider");
    let output = report::Output { json: cli.json };
    let result = match cli.command {
        Command::Demo(command) => command.run(&output),
        Command::Up(command) => command.run(&output),
        Command::Scheduler(command) => command.run(&output),
        Command::Broker(command) => command.run(&output),
        Command::Warehouse(command) => command.run(&output),
        Command::Creator(command) => command.run(&output),
        Command::Index(command) => command.run(&output),
        Command::Bench(command) => command.run(&output),
        Command::Build(command) => command.run(&output),
        Command::Write(command) => command.run(&output),
        Command::Verify(command) => command.run(&output),
        Command::Probe(command) => command.run(&output),
        Command::Card(command) => command.run(&output),
        Command::Flash(command) => command.run(&output),
        Command::Admin(command) => command.run(&output),
        Command::Sim(command) => command.run(&output),
    };
    let ending = result.unwrap_or_else(|error| {
        output.failure(&error);
        exit::of_error(&error)
    });
    std::process::ExitCode::from(ending as u8)
}

/// Logs go to standard error, by default warnings only; `RUST_LOG` says otherwise.
fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
