//! The token that is shown to a server.

use std::fmt;

use reqwest::header::HeaderValue;

use crate::error::{Error, ErrorKind};

/// A token. It is sent in a header of requests and nowhere else; no text that this crate makes holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(HeaderValue);

impl Token {
    /// A token as its file has it; white space around it does not count.
    ///
    /// # Errors
    /// When it is empty, or holds what no token can.
    pub fn new(text: &str) -> Result<Token, Error> {
        let wrong = |what: &str| Error::new(ErrorKind::Address, format!("the token {what}"));
        let text = text.trim();
        if text.is_empty() {
            return Err(wrong("is empty"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("holds white space or characters that are not visible ASCII"));
        }
        let value = HeaderValue::from_str(&format!("Bearer {text}"));
        let mut value = value.map_err(|_| wrong("cannot be sent in a header"))?;
        value.set_sensitive(true);
        Ok(Token(value))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read() {
        assert_eq!(Token::new(" gannet_1\n").unwrap().header(), "Bearer gannet_1");
        let refused = |text: &str| Token::new(text).unwrap_err().message;
        assert_eq!(refused(" \n"), "the token is empty");
        let what = "the token holds white space or characters that are not visible ASCII";
        assert_eq!(refused("gannet_1\ngannet_2"), what);
        assert_eq!(refused("gännet"), what);
        assert_eq!(format!("{:?}", Token::new("gannet_1")), "Ok(Token(…))");
    }
}
