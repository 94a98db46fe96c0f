//! The token of an interrupted import: where `export --resume` goes on. People carry it from one host to another, so it is text, says
//! what it is about, and a slip of the pen is noticed.

use crate::units::{SECTOR_BYTES, VolumeId};
use std::fmt;
use std::str::FromStr;

/// `FROM.TO.POSITION.CHECK`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub from: Option<VolumeId>,
    pub to: VolumeId,
    pub position: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not what an interrupted import said for --resume: copy all of it")]
pub struct TokenError(String);

/// A token is about 100 characters long; more of something else is not repeated in a message.
const SHOWN_CHARS_MAX: usize = 120;

const NONE: &str = "none";
const CHECK_DIGITS: usize = 8;

impl Token {
    fn body(&self) -> String {
        let from = self.from.map_or_else(|| NONE.to_owned(), |from| from.to_string());
        format!("{from}.{}.{}", self.to, self.position)
    }
}

fn check_of(body: &str) -> String {
    blake3::hash(body.as_bytes()).to_hex()[..CHECK_DIGITS].to_owned()
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        write!(f, "{body}.{}", check_of(&body))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        parse(text).ok_or_else(|| TokenError(text.chars().take(SHOWN_CHARS_MAX).collect()))
    }
}

fn parse(text: &str) -> Option<Token> {
    let (body, check) = text.rsplit_once('.')?;
    if check != check_of(body) {
        return None;
    }
    let mut fields = body.split('.');
    let from = fields.next()?;
    let from = if from == NONE { None } else { Some(from.parse().ok()?) };
    let token = Token { from, to: fields.next()?.parse().ok()?, position: fields.next()?.parse().ok()? };
    // Only the one way of writing it: no signs, no leading zeros.
    (token.body() == body && token.position.is_multiple_of(SECTOR_BYTES)).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text() {
        for from in [None, Some(VolumeId([0xab; 16]))] {
            let token = Token { from, to: VolumeId([7; 16]), position: 5 << 30 };
            assert_eq!(token.to_string().parse(), Ok(token));
        }
    }

    #[test]
    fn a_token_with_any_character_changed_or_missing_is_refused() {
        let text = Token { from: None, to: VolumeId([7; 16]), position: 1 << 20 }.to_string();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
            assert!(String::from_utf8(changed).unwrap().parse::<Token>().is_err(), "{at}");
            assert!(text[..at].parse::<Token>().is_err(), "{at}");
        }
    }
}
