//! Faults as they begin and end: what each of `faults` does to the world.

use cardshop_protocol::ids::SlotId;
use cardshop_protocol::token::Role;
use serde_json::json;

use super::broker::{Message, Party};
use super::cards::Place;
use super::faults::What;
use super::people::person;
use super::world::{Happening, World};

impl World {
    /// A fault begins or ends.
    pub(super) fn goes_wrong(&mut self, what: What, begins: bool) {
        let count = |faults: &mut u32| *faults = if begins { *faults + 1 } else { faults.saturating_sub(1) };
        match what {
            What::CentreDiskFull => {
                count(&mut self.centre.full);
                self.centre.world.set_disk_full(self.centre.full > 0);
            }
            What::CentreClock(seconds) => self.centre.clock_s = if begins { seconds } else { 0 },
            What::CentreCut => self.cut(Party::Centre, begins),
            What::Cut(a) => self.cut(Party::Appliance(a), begins),
            What::FetchCut(a) => count(&mut self.appliances[a].fetch_cut),
            What::Late(a, ms) => self.line(Party::Appliance(a)).late_ms = if begins { ms } else { 0 },
            What::Doubled(a) => self.line(Party::Appliance(a)).doubles = begins,
            What::FactsLost(a) => self.line(Party::Appliance(a)).loses_facts = begins,
            What::AgentDiskFull(a) => count(&mut self.appliances[a].disk.full),
            What::CacheFull(a) => count(&mut self.appliances[a].cache_full),
            What::BadReader(a, n) => count(&mut self.slot(a, n).bad),
            What::Unplugged(a, n) => {
                count(&mut self.slot(a, n).unplugged);
                self.look_at_slot(a, &SlotId::numbered(n + 1));
            }
            What::WarehouseAway => {
                count(&mut self.away);
                self.warehouse.set_away(self.away > 0);
            }
            What::WarehouseLies(a) => count(&mut self.appliances[a].lied_to),
            What::CreatorSilent(c) => count(&mut self.creators[c].silent),
            What::Held(a, n) => self.hold_slot(a, SlotId::numbered(n + 1), begins),
            What::ThrownOut(a) if begins => self.throw_out(a),
            What::ThrownOut(a) => self.let_in(a),
            What::SwitchedOff(a) => {
                count(&mut self.appliances[a].off);
                if begins { self.kill_agent(a, true) } else { self.start_agent(a) }
            }
            What::Maintenance => self.maintain(begins),
            _ if begins => self.strikes(what),
            _ => {}
        }
    }

    /// A fault that lasts for no time.
    fn strikes(&mut self, what: What) {
        match what {
            What::AgentKilled(a) => self.kill_agent(a, false),
            What::PowerCut(a) => self.kill_agent(a, true),
            What::CentreKilled => self.kill_centre(),
            What::CentreStops(after, carried_out) => self.centre.world.stop_in(after, carried_out),
            What::BrokerAnew(forgets) => self.broker_anew(forgets),
            What::Impostor(a) => self.impostor(a),
            What::AgentClock(a, seconds) => self.appliances[a].clock_ms += seconds * 1000,
            What::Supply(a, kind, many) => self.supply[a] = Some((kind, many)),
            What::Pulled(a, n) => self.take_out(a, &SlotId::numbered(n + 1), Place::Hand(a)),
            What::CreatorKilled(c) => self.kill_creator(c),
            What::CreatorFails(c, permanent) => self.creators[c].fails = Some(permanent),
            What::CreatorLies(c) => self.creators[c].lies = true,
            What::Canceled => self.cancel_one(),
            What::Retried => self.retry_one(),
            What::PutBack(a) => self.put_back(a),
            What::Clash(clash) => self.clash(clash),
            _ => unreachable!("it lasts, and is taken by `goes_wrong`"),
        }
    }

    fn slot(&mut self, a: usize, n: u32) -> &mut super::appliance::Slot {
        self.appliances[a].slots.get_mut(&SlotId::numbered(n + 1)).expect("faults name slots there are")
    }

    fn cut(&mut self, who: Party, begins: bool) {
        let line = self.line(who);
        line.cuts = if begins { line.cuts + 1 } else { line.cuts.saturating_sub(1) };
        if begins {
            self.break_line(who);
        }
    }

    fn maintain(&mut self, on: bool) {
        let root = person("root", Role::Staff);
        let body = json!({"on": on});
        let told = self.ask_centre(|s| async move { s.set_maintenance(&root, body).await.map(|_| ()) });
        if self.heard("maintenance", told).is_none() && !on {
            // Nobody leaves it on.
            self.after(30_000, Happening::Ends(What::Maintenance));
        }
    }

    /// With an appliance's own token: what is another's, or the scheduler's. None of it may pass.
    fn impostor(&mut self, a: usize) {
        let Some(session) = self.line(Party::Appliance(a)).session else { return };
        let id = self.appliances[a].id;
        let other = self.appliances[(a + 1) % self.appliances.len()].id;
        let forged =
            |topic: String| Message { topic, payload: b"{\"v\":1,\"upto\":1000000}".to_vec(), retain: true };
        let mut topics = vec![
            format!("cardshop/1/appliance/{id}/event/ack"),
            format!("cardshop/1/appliance/{id}/desired"),
            "cardshop/1/server/status".to_owned(),
        ];
        if other != id {
            topics.push(format!("cardshop/1/appliance/{other}/event"));
            topics.push(format!("cardshop/1/appliance/{other}/status"));
        }
        let refused = self.broker.refused + topics.len() as u64;
        for topic in topics {
            self.arrives(Party::Appliance(a), session, forged(topic));
        }
        if self.broker.is_live(Party::Appliance(a), session) && self.broker.refused != refused {
            self.fail(&format!("a{a} may publish what is not its own"));
        }
    }
}
