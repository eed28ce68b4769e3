//! The scan against a reference that goes row by row, over the same rows in every encoding.

mod answers;
mod apart;
mod behaviour;
mod compound;
mod fixture;
mod interim;
