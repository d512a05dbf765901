//! Logs of tasks: workers append while they run, people read.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::TaskId;
use cardshop_protocol::token::Role;

use crate::core::fields::InvalidField;
use crate::core::rights::{Action, Principal};
use crate::core::task_log::{LogKind, MAX_PIECE, TaskLog};
use crate::core::views::{LogPiece, LogView};
use crate::store::{Batch, Document};
use crate::{Scheduler, SchedulerError};

impl Scheduler {
    /// Adds a piece to the log of a task that is the caller's. A piece that was taken before changes nothing.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid`, `Conflict` when the task is another's or a piece is missing before this one.
    pub async fn append_log(
        &self,
        caller: &Principal,
        task: TaskId,
        piece: &LogPiece,
    ) -> Result<LogView, SchedulerError> {
        caller.must(Action::Log)?;
        let order = self.order_of(caller, task.order)?;
        let is_own = match (caller.role, task.copy) {
            (Role::Creator, None) => order.creation.owner.as_deref() == Some(&caller.sub),
            (Role::Appliance, Some(copy)) => {
                let write = order.writes.get(&copy);
                write.and_then(|w| w.appliance).is_some_and(|a| a.to_string() == caller.sub)
            }
            _ => false,
        };
        if !is_own {
            let text = "this task is not yours: stop".to_owned();
            return Err(SchedulerError::Conflict { code: "not_your_task", text });
        }
        if !piece.kind.fits(task) {
            return Err(InvalidField::new("kind", "is not one of this task's logs").into());
        }
        if piece.text.len() > MAX_PIECE {
            return Err(InvalidField::new("text", format!("has more than {MAX_PIECE} bytes")).into());
        }
        let decide = || {
            let new = TaskLog::new(task, piece.kind, self.now());
            let stored = self.inner.store.get::<TaskLog>(&new.id())?;
            let mut log = stored.as_ref().map_or(new, |s| s.value.clone());
            log.append(piece.offset, &piece.text, self.now()).map_err(|next| SchedulerError::Conflict {
                code: "log_gap",
                text: format!("a piece is missing before this one: go on at byte {next}"),
            })?;
            if stored.as_ref().is_some_and(|s| s.value == log) {
                return Ok((None, log));
            }
            let mut batch = Batch::new();
            batch.upsert(stored.as_ref(), &log);
            Ok((Some(batch), log))
        };
        Ok(LogView::from(&self.change(decide).await?.0))
    }

    /// The logs that a task has.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn task_logs(&self, caller: &Principal, task: TaskId) -> Result<Page<LogView>, SchedulerError> {
        caller.must(Action::Look)?;
        self.order_of(caller, task.order)?;
        let mut items = Vec::new();
        for kind in LogKind::ALL {
            let id = TaskLog::new(task, kind, self.now()).id();
            items.extend(self.inner.store.get::<TaskLog>(&id)?.map(|log| LogView::from(&log.value)));
        }
        Ok(Page { items, next_cursor: None })
    }

    /// The text of one log, as far as it is kept.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn task_log(
        &self,
        caller: &Principal,
        task: TaskId,
        kind: LogKind,
    ) -> Result<String, SchedulerError> {
        caller.must(Action::Look)?;
        self.order_of(caller, task.order)?;
        let id = TaskLog::new(task, kind, self.now()).id();
        let log = self.inner.store.get::<TaskLog>(&id)?.ok_or(SchedulerError::NotFound("log"))?.value;
        let dropped =
            if log.dropped > 0 { format!("… {} bytes before\n", log.dropped) } else { String::new() };
        Ok(dropped + &log.text)
    }
}
