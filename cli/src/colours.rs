//! Colours of text that are read on a dark ground and on a light one.
//!
//! The sixteen that a terminal names are its theme's to choose, and on many a white ground its yellow and its cyan cannot
//! be read. These are of the 256 whose shades are fixed, and lie between: each has a contrast of at least 3 with black and
//! with white, which is what WCAG 2 asks of the lines of a chart.

/// A colour, as its number among the 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Colour(u8);

/// Numbers.
pub(crate) const BLUE: Colour = Colour(31);
/// Text.
pub(crate) const GREEN: Colour = Colour(64);
/// Of series, in this order: neighbours differ for most eyes.
pub(crate) const OF_SERIES: [Colour; 6] = [BLUE, Colour(166), Colour(133), GREEN, Colour(160), Colour(62)];

impl Colour {
    /// The text between the codes that colour it.
    pub(crate) fn paint(self, text: &str) -> String {
        format!("\u{1b}[38;5;{}m{text}\u{1b}[0m", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance, as WCAG 2 has it, of one of the 216 that are a cube of six shades of red, green and blue.
    fn luminance(colour: Colour) -> f64 {
        let place = colour.0.checked_sub(16).filter(|place| *place < 216).expect("it is in the cube");
        let shade = |step: u8| match f64::from([0u8, 95, 135, 175, 215, 255][usize::from(step)]) / 255.0 {
            dark if dark <= 0.040_45 => dark / 12.92,
            light => ((light + 0.055) / 1.055).powf(2.4),
        };
        0.2126 * shade(place / 36) + 0.7152 * shade(place / 6 % 6) + 0.0722 * shade(place % 6)
    }

    #[test]
    fn each_is_read_on_black_and_on_white() {
        for colour in OF_SERIES {
            let luminance = luminance(colour);
            let (on_black, on_white) = ((luminance + 0.05) / 0.05, 1.05 / (luminance + 0.05));
            assert!(on_black >= 3.0 && on_white >= 3.0, "{colour:?}: {on_black:.1} and {on_white:.1}");
        }
    }

    #[test]
    fn painting_adds_codes_and_nothing_else() {
        assert_eq!(GREEN.paint("ü"), "\u{1b}[38;5;64mü\u{1b}[0m");
    }
}
