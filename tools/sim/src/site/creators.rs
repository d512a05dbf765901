//! Creators: claim tasks at the same moment, tell how far they are, put images into the warehouse, and fail, fall silent or
//! lie when a fault says so.

use cardshop_protocol::api::{CreationPhase, CreationReport, CreationTask};
use cardshop_protocol::ids::{ImageId, OrderId, TaskId};
use cardshop_protocol::token::Role;

use super::images::Image;
use super::people::person;
use super::world::{Happening, World};

/// How many creators there are.
pub(super) const CREATORS: usize = 2;
/// What a creator needs in all, of which it reports a part at a time, milliseconds.
const BUILD_STEP_MS: u64 = 20_000;

/// One creator.
#[derive(Default)]
pub(super) struct Creator {
    task: Option<CreationTask>,
    steps_left: u64,
    pub(super) silent: u32,
    pub(super) fails: Option<bool>,
    pub(super) lies: bool,
}

impl World {
    /// The creators ask for work at the same moment, so that they meet.
    pub(super) fn creators_look(&mut self) {
        self.after(BUILD_STEP_MS, Happening::CreatorsLook);
        let idle: Vec<usize> = (0..CREATORS)
            .filter(|c| self.creators[*c].task.is_none() && self.creators[*c].silent == 0)
            .collect();
        let named = |c: usize| person(&format!("maker{c}"), Role::Creator);
        self.centre.world.interleave(self.seed | 1);
        let claimed = match idle[..] {
            [one, two] => {
                let (first, second) = (named(one), named(two));
                let both = self.ask_centre(|s| async move {
                    tokio::join!(s.claim_task(&first, 0), s.claim_task(&second, 0))
                });
                both.map_or(Vec::new(), |(a, b)| vec![(one, a), (two, b)])
            }
            [one] => {
                let who = named(one);
                let claimed = self.ask_centre(|s| async move { s.claim_task(&who, 0).await });
                claimed.map_or(Vec::new(), |a| vec![(one, a)])
            }
            _ => Vec::new(),
        };
        self.centre.world.interleave(0);
        for (c, task) in claimed {
            if let Some(Some(task)) = self.heard("claim", Some(task)) {
                self.say(&format!("maker{c} has {}", task.task));
                self.creators[c].steps_left = self.chance.from(1..8);
                self.creators[c].task = Some(task);
            }
        }
        let both: Vec<_> = self.creators.iter().filter_map(|c| c.task.as_ref()).map(|t| t.task).collect();
        if let [one, two] = both[..]
            && one == two
            && self.creators.iter().all(|c| c.silent == 0)
        {
            // The one that lost it learns so by its next report.
            self.say(&format!("both creators are at {one}"));
        }
        (0..CREATORS).for_each(|c| self.creator_works(c));
    }

    fn creator_works(&mut self, c: usize) {
        let creator = &mut self.creators[c];
        let (Some(task), 0) = (&creator.task, creator.silent) else { return };
        let order = task.task.order;
        if let Some(permanent) = creator.fails.take() {
            let reason = "as simulated".to_owned();
            return self.report(c, order, CreationReport::Failed { reason, permanent });
        }
        if creator.steps_left > 0 {
            creator.steps_left -= 1;
            let phase = CreationPhase::Building;
            return self.report(c, order, CreationReport::Running { phase, done: 1, total: 2, eta_s: None });
        }
        if std::mem::take(&mut creator.lies) {
            return self.report(c, order, CreationReport::Succeeded { image: ImageId([9; 32]) });
        }
        let recipe = task.recipe["simulated"].as_u64().unwrap_or(0);
        let image = Image::of(recipe);
        if self.warehouse.put(&image) {
            self.images.insert(image.id(), image.clone());
            self.report(c, order, CreationReport::Succeeded { image: image.id() });
        }
    }

    fn report(&mut self, c: usize, order: OrderId, report: CreationReport) {
        let who = person(&format!("maker{c}"), Role::Creator);
        let ends = !matches!(report, CreationReport::Running { .. });
        let task = TaskId::creation(order);
        let told = self.ask_centre(|s| async move { s.report_task(&who, task, report).await });
        // Not heard: it is told again with the next look.
        if let Some(answer) = self.heard("report", told)
            && (ends || answer.stop)
        {
            self.creators[c].task = None;
        }
    }

    pub(super) fn kill_creator(&mut self, c: usize) {
        self.creators[c] = Creator { silent: self.creators[c].silent, ..Creator::default() };
    }
}
