//! Turns what was typed into checked types, with errors that say which argument is wrong and how it should be.

use crate::units::{ByteSize, ObjectSize, UnitError, VolumeName, VolumeSize};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command};
use std::ffi::OsStr;
use std::path::PathBuf;

/// A parser for text arguments. clap's own says no more of an argument that is not UTF-8 than that there is one.
#[derive(Clone)]
pub struct Text<T>(fn(&str) -> Result<T, UnitError>);

pub fn text() -> Text<String> {
    Text(|text| Ok(text.to_owned()))
}

/// A path that may be empty: a variable that is set to nothing says nothing.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

pub fn volume_name() -> Text<VolumeName> {
    Text(VolumeName::new)
}

pub fn volume_size() -> Text<VolumeSize> {
    Text(|text| text.parse::<ByteSize>().and_then(|size| VolumeSize::new(size.0)))
}

pub fn object_size() -> Text<ObjectSize> {
    Text(|text| text.parse::<ByteSize>().and_then(|size| ObjectSize::new(size.0)))
}

pub fn byte_size() -> Text<ByteSize> {
    Text(str::parse)
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Text<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let name = argument.map_or_else(|| "an argument".to_owned(), ToString::to_string);
        let error = |kind, text: String| clap::Error::raw(kind, format!("{name}: {text}\n")).with_cmd(command);
        let text = value.to_str().ok_or_else(|| {
            error(ErrorKind::InvalidUtf8, format!("{:?} is not valid UTF-8", value.to_string_lossy()))
        })?;
        (self.0)(text).map_err(|reason| error(ErrorKind::ValueValidation, reason.to_string()))
    }
}
