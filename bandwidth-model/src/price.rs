//! What a meter's bytes cost. Amounts are exact fractions in the currency of the tariff.

use crate::error::ModelError;
use crate::ratio::Ratio;
use crate::units::Bytes;

/// How a provider rounds the units over the allowance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rounding {
    /// Pro rata.
    None,
    /// Every started unit is paid in full.
    Ceil,
}

/// A monthly tariff.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tariff {
    /// Paid in any case.
    pub base: Ratio,
    /// Bytes included in the base.
    pub included: Bytes,
    /// Price of one unit over the allowance.
    pub price: Ratio,
    /// Size of that unit, such as 1 GB = 10⁹ bytes.
    pub unit: Bytes,
    /// What happens to a part of a unit.
    pub rounding: Rounding,
}

impl Tariff {
    /// base + price·round(max(0, used − included)/unit).
    ///
    /// # Errors
    /// [`ModelError::Zero`] for a unit of no bytes, or [`ModelError::TooLarge`].
    pub fn cost(&self, used: Bytes) -> Result<Ratio, ModelError> {
        let over = used.exact()?.minus(self.included.exact()?)?;
        let over = if over.is_negative() { Ratio::ZERO } else { over };
        if self.unit == Bytes::ZERO {
            return Err(ModelError::Zero("the unit"));
        }
        let units = over.over(self.unit.exact()?)?;
        let units = match self.rounding {
            Rounding::None => units,
            Rounding::Ceil => units.ceil(),
        };
        self.base.plus(self.price.times(units)?)
    }
}

/// Participant-minutes, the unit of hosted video services: 60·hours·P.
///
/// # Errors
/// [`ModelError::TooLarge`].
pub fn participant_minutes(hours: Ratio, people: u64) -> Result<Ratio, ModelError> {
    hours.times(Ratio::whole(60 * u128::from(people))?)
}
