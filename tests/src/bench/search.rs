//! The highest rate that holds, found by trying rates on a geometric ladder.

/// Lowest rate on the ladder, in packets per second.
const RATE_MIN: f64 = 20_000.0;
/// From one step to the next. Finer than the spread between rounds is pointless.
const STEP: f64 = 1.03;
/// Steps of the ladder; the highest is about one million packets per second.
pub const STEPS: usize = 134;
/// First distance of the search from where it starts, in steps.
const STRIDE: usize = 4;

/// The rate of a step, in packets per second.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "below STEPS")]
pub fn rate(step: usize) -> f64 {
    RATE_MIN * STEP.powi(step as i32)
}

/// The step nearest to a rate.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
pub fn step(rate: f64) -> usize {
    let step = (rate / RATE_MIN).ln() / STEP.ln();
    step.round().clamp(0.0, (STEPS - 1) as f64) as usize
}

/// The highest step for which `holds`, if steps up to it hold and those above do not; `None` if
/// not even the lowest does. Strides double from `start` until a bracket is found, which is then
/// halved.
///
/// # Errors
/// The first error of `holds`.
pub fn highest<E>(
    start: usize,
    mut holds: impl FnMut(usize) -> Result<bool, E>,
) -> Result<Option<usize>, E> {
    let start = start.min(STEPS - 1);
    let (mut good, mut bad) = (None, STEPS);
    let mut stride = STRIDE;
    if holds(start)? {
        good = Some(start);
        while let Some(known) = good.filter(|known| known + 1 < bad) {
            let next = (known + stride).min(STEPS - 1);
            if !holds(next)? {
                bad = next;
                break;
            }
            good = Some(next);
            stride *= 2;
        }
    } else {
        bad = start;
        while good.is_none() && bad > 0 {
            let next = bad.saturating_sub(stride);
            if holds(next)? {
                good = Some(next);
            } else {
                bad = next;
            }
            stride *= 2;
        }
    }
    while let Some(known) = good.filter(|known| known + 1 < bad) {
        let middle = known.midpoint(bad);
        if holds(middle)? {
            good = Some(middle);
        } else {
            bad = middle;
        }
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn every_limit_is_found_from_every_start() {
        for limit in 0..STEPS {
            for start in [0, 7, 90, STEPS - 1, STEPS + 5] {
                let mut probes = 0;
                let found = highest(start, |step| {
                    assert!(step < STEPS);
                    probes += 1;
                    Ok::<_, Infallible>(step <= limit)
                });
                assert_eq!(found, Ok(Some(limit)), "from {start}");
                assert!(probes <= 16, "{probes} probes for {limit} from {start}");
            }
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_holds() {
        assert_eq!(highest(50, |_| Ok::<_, Infallible>(false)), Ok(None));
        assert_eq!(highest(50, |_| Err("broken")), Err("broken"));
    }

    #[test]
    fn steps_and_rates_are_inverse() {
        for at in 0..STEPS {
            assert_eq!(step(rate(at)), at);
        }
        assert_eq!(step(1.0), 0);
        assert_eq!(step(1e12), STEPS - 1);
    }
}
