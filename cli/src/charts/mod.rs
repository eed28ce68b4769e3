//! Charts as text: lines in braille dots, bars, sparklines and heatmaps, each with a form in ASCII.
//!
//! But for `answer`, which finds in an answer what can be drawn, nothing here knows where numbers come from. A chart is as
//! wide and as high as it is told to be, and draws no number that is not finite.

use clap::ValueEnum;

pub(crate) mod answer;
pub(crate) mod bars;
pub(crate) mod heat;
pub(crate) mod lines;
pub(crate) mod numbers;

/// How numbers are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Chart {
    /// What fits: lines over time, bars of what is few
    Auto,
    /// Lines over time
    Line,
    /// Bars
    Bar,
    /// Numbers only
    None,
}
