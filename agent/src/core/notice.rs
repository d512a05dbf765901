//! What a screen says of the appliance as a whole: where it stands, and what a person is to do. A pure function of
//! where it stands; every ending of the way into a shop has a name of its own. Slots have sentences of their own.

use super::enrol::Standing;

/// One screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Stable name, for tests and for people who ask for help.
    pub code: &'static str,
    /// One sentence or two.
    pub text: String,
}

/// What else a screen depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// A route to somewhere is there.
    pub network: bool,
    /// The broker is connected.
    pub connected: bool,
    /// How many slots are known.
    pub slots: usize,
}

/// How the HTTP library and the system say that nobody knows a name. **Source:** ureq's `HostNotFound`, getaddrinfo(3).
const NO_SUCH_NAME: [&str; 3] = ["host not found", "failed to lookup address", "name resolution"];

/// The screen for where the appliance stands.
pub fn notice(standing: &Standing, around: Surroundings) -> Notice {
    let (code, text) = match standing {
        Standing::Starting => ("starting", "Starting.".to_owned()),
        Standing::NoJoinFile(why) => {
            ("no_join_file", format!("JOIN.TXT is needed on this stick's CARDSHOP partition: {why}."))
        }
        Standing::JoinRefused(why) => (
            "join_refused",
            format!("The shop does not take this token; put a new one into JOIN.TXT. It says: {why}"),
        ),
        Standing::WrongServer(why) => (
            "wrong_server",
            format!(
                "This is not the shop that JOIN.TXT names, or something in the network answers for it: {why}"
            ),
        ),
        Standing::WaitingForApproval(code) => (
            "waiting_for_approval",
            format!("Pairing code {code}. Compare it with the dashboard's and approve this appliance there."),
        ),
        Standing::Rejected => ("rejected", "The shop has rejected this appliance.".to_owned()),
        Standing::Retired => ("retired", "The shop has retired this appliance.".to_owned()),
        Standing::ServerAway(_) if !around.network => (
            "no_network",
            "No network: is the cable in? NETWORK.TXT is for networks without DHCP.".to_owned(),
        ),
        Standing::ServerAway(why) if why.contains("not valid yet") => {
            ("clock_wrong", format!("This machine's clock is behind: {why}"))
        }
        Standing::ServerAway(why) if why.contains("expired") => (
            "certificate_expired",
            format!(
                "The shop's certificate has ended, or this machine's clock is ahead; whoever keeps the shop renews it: {why}"
            ),
        ),
        Standing::ServerAway(why) if NO_SUCH_NAME.iter().any(|sign| why.contains(sign)) => (
            "name_not_found",
            format!("The shop's name is not found: are the name servers of this network right? {why}"),
        ),
        Standing::ServerAway(why) => ("server_away", format!("The shop is not reached: {why}")),
        Standing::Member if !around.connected => ("connecting", "Let in; connecting.".to_owned()),
        Standing::Member => ("ready", format!("Ready, {} slots.", around.slots)),
    };
    Notice { code, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AROUND: Surroundings = Surroundings { network: true, connected: true, slots: 2 };

    #[test]
    fn every_ending_of_the_way_into_a_shop_has_a_name_of_its_own() {
        let away = || Standing::ServerAway("connection refused".into());
        let early = Standing::ServerAway("invalid peer certificate: certificate not valid yet".into());
        let over = Standing::ServerAway("invalid peer certificate: certificate expired: 5 s ago".into());
        let unknown = Standing::ServerAway("io: failed to lookup address information: Try again".into());
        let unplugged = Surroundings { network: false, ..AROUND };
        let cases = [
            (Standing::Starting, AROUND, "starting"),
            (Standing::NoJoinFile("it is not there".into()), AROUND, "no_join_file"),
            (Standing::JoinRefused("used up".into()), AROUND, "join_refused"),
            (Standing::WrongServer("another CA".into()), AROUND, "wrong_server"),
            (Standing::WaitingForApproval("ABC123".into()), AROUND, "waiting_for_approval"),
            (Standing::Rejected, AROUND, "rejected"),
            (Standing::Retired, AROUND, "retired"),
            (away(), unplugged, "no_network"),
            (early, AROUND, "clock_wrong"),
            (over, AROUND, "certificate_expired"),
            (unknown, AROUND, "name_not_found"),
            (away(), AROUND, "server_away"),
            (Standing::Member, Surroundings { connected: false, ..AROUND }, "connecting"),
            (Standing::Member, AROUND, "ready"),
        ];
        for (standing, around, code) in cases {
            assert_eq!(notice(&standing, around).code, code);
        }
        assert!(notice(&Standing::WaitingForApproval("ABC123".into()), AROUND).text.contains("ABC123"));
        assert!(notice(&Standing::JoinRefused("used up".into()), AROUND).text.ends_with("used up"));
    }
}
