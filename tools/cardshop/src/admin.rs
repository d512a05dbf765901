//! `cardshop admin`: what a site's keeper does beside the pages: backups, moving the state, and the access list of
//! another broker.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use cardshop_broker::acl::{OtherBroker, Person, access_list};
use cardshop_protocol::token::Role;
use clap::{Subcommand, ValueEnum};

use crate::exit::{Ending, wrong_usage};
use crate::report::Output;
use crate::store::{Backup, Export, Restore};

/// Keeps a site.
///
/// Example: cardshop admin broker-acl --for mosquitto --person ada:staff
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Admin {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    BrokerAcl(BrokerAcl),
    Backup(Backup),
    Restore(Restore),
    Export(Export),
    Update(crate::update::Update),
    /// Makes the state of a site from an export; the same as restore.
    Import(Restore),
}

impl Admin {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        match self.what {
            What::BrokerAcl(command) => command.run(output),
            What::Backup(command) => command.run(output),
            What::Restore(command) | What::Import(command) => command.run(output),
            What::Export(command) => command.run(output),
            What::Update(command) => command.run(output),
        }
    }
}

/// Writes the rights on MQTT topics as the access list of another broker; its first lines say where it belongs.
///
/// Example: cardshop admin broker-acl --for mosquitto --person ada:staff --person max:manager:north,south -o cardshop.acl
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
struct BrokerAcl {
    /// The broker.
    #[arg(long = "for", value_name = "BROKER")]
    broker: Kind,
    /// Who may read besides appliances and scheduler: NAME:ROLE or NAME:ROLE:CHANNEL,CHANNEL; say it again for each.
    #[arg(long, value_name = "NAME:ROLE[:CHANNELS]")]
    person: Vec<String>,
    /// The file [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Mosquitto,
    Emqx,
    Rmqtt,
}

impl BrokerAcl {
    fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let people = self.person.iter().map(|text| person(text)).collect::<anyhow::Result<Vec<_>>>()?;
        let broker = match self.broker {
            Kind::Mosquitto => OtherBroker::Mosquitto,
            Kind::Emqx => OtherBroker::Emqx,
            Kind::Rmqtt => OtherBroker::Rmqtt,
        };
        let text = access_list(broker, &people);
        match &self.output {
            Some(path) => {
                std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
                output.line(format_args!("{}", path.display()));
            }
            None => {
                std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?
            }
        }
        Ok(Ending::Done)
    }
}

/// Reads `name:role[:channels]`. Names go into a configuration: only what cannot end a line or a quote there.
fn person(text: &str) -> anyhow::Result<Person> {
    let wrong = |why: &str| wrong_usage(format!("{text:?} is not NAME:ROLE[:CHANNELS]: {why}"));
    let mut parts = text.splitn(3, ':');
    let name = parts.next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_@".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        return Err(wrong("a name has letters, digits and .-_@"));
    }
    let role = match parts.next() {
        Some("staff") => Role::Staff,
        Some("manager") => Role::Manager,
        Some("operator") => Role::Operator,
        Some("integrator") => Role::Integrator,
        _ => return Err(wrong("the role is staff, manager, operator or integrator")),
    };
    let channels = parts.next().into_iter().flat_map(|channels| channels.split(','));
    let channels =
        channels.map(|c| c.parse().map_err(|_| wrong("a channel is a slug"))).collect::<Result<_, _>>()?;
    Ok(Person { name: name.to_owned(), role, channels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_read_with_role_and_channels_and_nothing_slips_into_the_list() {
        let max = person("max:manager:north,south").unwrap();
        assert_eq!((max.name.as_str(), max.role, max.channels.len()), ("max", Role::Manager, 2));
        assert_eq!(person("ada:staff").unwrap().channels, []);
        for bad in
            ["", "ada", "ada:king", "a\nb:staff", "a\"b:staff", "+:staff", "ada:manager:No Slug", ":staff"]
        {
            assert!(person(bad).is_err(), "{bad:?}");
        }
    }
}
