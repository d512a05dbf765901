//! Starts the agent from its configuration file and stops it cleanly on SIGTERM or Ctrl-C. Logs to standard
//! error, as much as `RUST_LOG` says.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use cardshop_agent::core::network_file::{MAX_NETWORK_FILE_SIZE, NetworkFile};
use cardshop_agent::{Config, SimulateConfig, StopFlag, logs};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// The appliance's process: writes cards for the shop that its join file names.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  cardshop-agent --config /etc/cardshop/agent.toml --simulate 4")]
struct Arguments {
    /// Settings, TOML.
    #[arg(long, env = "CARDSHOP_AGENT_CONFIG", required_unless_present = "check_network")]
    config: Option<PathBuf>,
    /// Read a NETWORK.TXT, print its settings one a line, and end.
    #[arg(long, value_name = "FILE", exclusive = true)]
    check_network: Option<PathBuf>,
    /// Run this many virtual slots instead of those of the settings.
    #[arg(long, value_name = "SLOTS")]
    simulate: Option<u32>,
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let started = filter.to_string();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(|| logs::Tee(logs::ring()))
        .with_filter_reloading();
    let reload = log.reload_handle();
    log.init();
    logs::on_level(move |level| {
        let level = if level.is_empty() { started.as_str() } else { level };
        let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
        reload.reload(filter).map_err(|error| error.to_string())
    });
    let arguments = Arguments::parse();
    if let Some(file) = &arguments.check_network {
        return match check_network(file) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    match work(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(arguments: Arguments) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config.context("--config names the settings")?)?;
    let config = match arguments.simulate {
        Some(slots) => with_virtual_slots(config, slots),
        None => config,
    };
    let stop = StopFlag::new();
    let on_signal = stop.clone();
    ctrlc::set_handler(move || on_signal.stop()).context("cannot listen for signals")?;
    Ok(cardshop_agent::run(config, stop)?)
}

/// For the boot scripts, which take nothing into a command line that was not read here.
fn check_network(file: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    let limit = MAX_NETWORK_FILE_SIZE as u64 + 1;
    let opened = File::open(file).with_context(|| file.display().to_string())?;
    opened.take(limit).read_to_string(&mut text).with_context(|| file.display().to_string())?;
    std::io::stdout().write_all(NetworkFile::parse(&text)?.lines().as_bytes())?;
    Ok(())
}

fn with_virtual_slots(config: Config, slots: u32) -> Config {
    let simulate = SimulateConfig { slots, ..config.simulate.unwrap_or_default() };
    Config { slots: Vec::new(), simulate: Some(simulate), ..config }
}
