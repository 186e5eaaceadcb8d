//! The HTTP interface over stores in memory, with a verifier that takes a token for its bearer's name.

mod authorisation;
mod enrolment;
mod form;
mod pages;
mod stage;
mod way;
