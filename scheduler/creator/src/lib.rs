//! From a recipe to an image with its index, and the worker that does it for the scheduler.
//!
//! [`configuration`] makes recipes of what managers want, [`Recipe`] reads and checks, [`check`] sizes, [`build()`] builds, [`Uploader`] puts image and index into a
//! warehouse, [`worker`] claims creation tasks and does all four. Used by the `cardshop` command (`build`,
//! `creator`, `demo`, `up --with-creator`). Everything blocks; a [`StopFlag`] ends it within 5 s.

mod build;
mod cache;
pub mod configuration;
mod copy;
mod digest;
mod early;
mod ext4;
mod extents;
mod fat;
mod fetch;
mod http;
mod map;
mod mbr;
mod oci;
pub mod outside;
mod parallel;
mod policy;
pub mod recipe;
mod script;
mod session;
mod simulate;
mod sizing;
mod tree;
mod unpack;
mod upload;
mod watch;
pub mod worker;

pub use build::{BuildError, Built, LocalFiles, Options, Progress, build};
pub use cardshop_card::StopFlag;
pub use digest::{Algo, Checksum};
pub use early::Growing;
pub use ext4::{Ext4Error, check_tools};
pub use fetch::FetchError;
pub use http::Backoff;
pub use mbr::MbrError;
pub use oci::{ImageName, OciError};
pub use policy::{Limits, Policy, Rule};
pub use recipe::{Recipe, RecipeError};
pub use sizing::{Row, Sizing, Volume, check};
pub use tree::TreeError;
pub use unpack::UnpackError;
pub use upload::{EarlyUpload, UploadError, Uploader};
pub use watch::Watcher;
