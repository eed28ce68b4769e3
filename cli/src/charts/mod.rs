//! Charts as text: lines in braille dots, bars, sparklines and heatmaps, each with a form in ASCII.
//!
//! But for `answer`, which finds in an answer what can be drawn, nothing here knows where numbers come from. A chart is as wide and as high as it is told to be, and draws no number that
//! is not finite.

pub(crate) mod answer;
pub(crate) mod bars;
pub(crate) mod heat;
pub(crate) mod lines;
pub(crate) mod numbers;
