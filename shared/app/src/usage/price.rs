//! What KMS takes for requests.

use std::str::FromStr;

use claviger_domain::invalid::{Invalid, shown};

/// The price of ten thousand requests, in millionths of a US dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KmsPrice(u32);

const MICROS: f64 = 1e6;

impl Default for KmsPrice {
    /// What AWS publishes for symmetric keys in most regions: $0.03.
    fn default() -> Self {
        Self(30_000)
    }
}

impl KmsPrice {
    /// In US dollars.
    pub fn per_10000_usd(self) -> f64 {
        f64::from(self.0) / MICROS
    }

    /// What so many requests cost, in US dollars, to the millionth.
    pub fn of(self, requests: i64) -> f64 {
        let requests = u128::from(requests.max(0).unsigned_abs());
        let micros = requests.saturating_mul(u128::from(self.0)).div_ceil(10_000);
        micros as f64 / MICROS
    }
}

impl FromStr for KmsPrice {
    type Err = Invalid;

    /// US dollars: `0.03`. At most 1000, at most six decimals.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            let help = "give US dollars for 10,000 requests, like `0.03`";
            Invalid::new(format!("`{}` is not a price", shown(text)), help)
        };
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(decimals) || decimals.len() > 6 {
            return Err(wrong());
        }
        let micros: u32 = format!("{whole}{decimals:0<6}").parse().map_err(|_| wrong())?;
        if micros > 1_000_000_000 { Err(wrong()) } else { Ok(Self(micros)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_decimal_dollars() {
        for (text, dollars) in
            [("0.03", 0.03), ("1", 1.0), ("0", 0.0), ("12.345678", 12.345_678), ("2.", 2.0)]
        {
            assert!((text.parse::<KmsPrice>().unwrap().per_10000_usd() - dollars).abs() < 1e-9, "{text}");
        }
        for text in ["", ".", ".5", "-1", "+1", "1,5", "free", "0.0000001", "1e3", "1001", "99999999999"] {
            assert!(text.parse::<KmsPrice>().is_err(), "{text}");
        }
    }

    #[test]
    fn requests_cost_to_the_millionth() {
        let price = KmsPrice::default();
        for (requests, dollars) in [(0, 0.0), (1, 0.000_003), (10_000, 0.03), (86_400, 0.2592), (-1, 0.0)] {
            assert!((price.of(requests) - dollars).abs() < 1e-9, "{requests}");
        }
    }
}
