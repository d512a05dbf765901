//! Plays the people and machines around a site, over the same wire as real ones: a manager who opens a shop,
//! approves an appliance and places an order ([`shop`]), and the content that the shop's cards carry
//! ([`content`]). It decides nothing about orders or cards. `cardshop demo` and the end-to-end tests use it. [`site`] is a
//! whole site in one process on simulated time, [`load`] thousands of appliances at a real one: `cardshop sim`.

pub mod client;
pub mod content;
pub mod load;
pub mod shop;
pub mod site;
