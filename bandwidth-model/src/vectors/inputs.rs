//! The `inputs_json` of one row. Numbers keep their text, so that decimals stay exact.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::Failure;
use crate::chance::Share;
use crate::links::Room;
use crate::ratio::Ratio;
use crate::units::{BitsPerSec, Bytes, Seconds};

/// Inputs that only describe a row: a label, and the one prior there is.
const LABELS: [&str; 2] = ["case", "prior"];

/// The inputs that have not been taken yet.
pub(super) struct Inputs(BTreeMap<String, Box<RawValue>>);

impl Inputs {
    pub(super) fn parse(json: &str) -> Result<Self, Failure> {
        serde_json::from_str(json).map(Self).map_err(|_| Failure::InputsNotAnObject)
    }

    /// Takes the input of that name.
    pub(super) fn take(&mut self, name: &str) -> Result<Input, Failure> {
        self.take_if_given(name).ok_or_else(|| Failure::MissingInput(name.to_owned()))
    }

    pub(super) fn take_if_given(&mut self, name: &str) -> Option<Input> {
        self.0.remove(name).map(|raw| Input { name: name.to_owned(), raw })
    }

    /// The room of inputs `P` and `T`.
    pub(super) fn room(&mut self) -> Result<Room, Failure> {
        let people = self.people()?;
        Ok(Room::new(people, self.take("T")?.whole()?)?)
    }

    /// Input `P`.
    pub(super) fn people(&mut self) -> Result<u64, Failure> {
        self.take("P")?.whole()
    }

    /// Input `b_bps`.
    pub(super) fn stream(&mut self) -> Result<BitsPerSec, Failure> {
        self.take("b_bps")?.rate()
    }

    /// Fails if an input that means something is left over.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        self.0.retain(|name, _| !LABELS.contains(&name.as_str()));
        match self.0.pop_first() {
            Some((name, _)) => Err(Failure::UnusedInput(name)),
            None => Ok(()),
        }
    }
}

/// One input, or one element of a list.
pub(super) struct Input {
    name: String,
    raw: Box<RawValue>,
}

impl Input {
    /// An exact decimal: a JSON number, or one in quotation marks.
    pub(super) fn decimal(&self) -> Result<Ratio, Failure> {
        let quoted = self.json::<String>().ok();
        let text = quoted.as_deref().unwrap_or(self.raw.get());
        Ratio::from_decimal(text).map_err(|_| self.wrong("a decimal number"))
    }

    pub(super) fn whole(&self) -> Result<u64, Failure> {
        let whole = self.decimal()?.as_whole().and_then(|whole| u64::try_from(whole).ok());
        whole.ok_or_else(|| self.wrong("a whole number from 0 to 2^64-1"))
    }

    pub(super) fn rate(&self) -> Result<BitsPerSec, Failure> {
        self.whole().map(BitsPerSec::new)
    }

    pub(super) fn bytes(&self) -> Result<Bytes, Failure> {
        self.whole().map(Bytes::new)
    }

    pub(super) fn seconds(&self) -> Result<Seconds, Failure> {
        self.whole().map(Seconds::new)
    }

    pub(super) fn float(&self) -> Result<f64, Failure> {
        self.json().map_err(|_| self.wrong("a number"))
    }

    pub(super) fn share(&self) -> Result<Share, Failure> {
        Ok(Share::new(self.float()?)?)
    }

    /// `true`, `false`, 1 or 0.
    pub(super) fn flag(&self) -> Result<bool, Failure> {
        match self.raw.get() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(self.wrong("true, false, 1 or 0")),
        }
    }

    pub(super) fn text(&self) -> Result<String, Failure> {
        self.json().map_err(|_| self.wrong("a text"))
    }

    pub(super) fn list(&self) -> Result<Vec<Self>, Failure> {
        let items: Vec<Box<RawValue>> = self.json().map_err(|_| self.wrong("a list"))?;
        Ok(items.into_iter().map(|raw| Self { name: self.name.clone(), raw }).collect())
    }

    /// A list of exactly `N` elements.
    pub(super) fn tuple<const N: usize>(&self) -> Result<[Self; N], Failure> {
        self.list()?.try_into().map_err(|_| self.wrong("a list of the right length"))
    }

    pub(super) fn wrong(&self, expected: &'static str) -> Failure {
        Failure::WrongInput { name: self.name.clone(), expected }
    }

    fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.raw.get())
    }
}
