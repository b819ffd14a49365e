//! Durations in service documents.

use std::time::Duration;

use serde_json::Value;

/// The longest duration that a document may name: a year.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Reads a number of seconds, or a text with a unit: `500ms`, `30s`, `2m`, `1h`.
///
/// # Errors
///
/// The sentence says what the key must be.
pub(crate) fn parse_duration(key: &str, value: &Value) -> Result<Duration, String> {
    let seconds = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => parse_text(text),
        _ => None,
    };
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| format!("`{key}` must be a number of seconds or a text such as \"30s\", \"500ms\" or \"2m\""))
}

fn parse_text(text: &str) -> Option<f64> {
    let text = text.trim();
    let (number, scale) = if let Some(number) = text.strip_suffix("ms") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60.0)
    } else if let Some(number) = text.strip_suffix('h') {
        (number, 3600.0)
    } else {
        (text, 1.0)
    };
    number.trim().parse::<f64>().ok().map(|number| number * scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_duration_is_a_number_of_seconds_or_a_text_with_a_unit() {
        let parse = |value: Value| parse_duration("stop_timeout", &value).ok();
        assert_eq!(parse(json!(30)), Some(Duration::from_secs(30)));
        assert_eq!(parse(json!(0.25)), Some(Duration::from_millis(250)));
        assert_eq!(parse(json!("500ms")), Some(Duration::from_millis(500)));
        assert_eq!(parse(json!("2m")), Some(Duration::from_secs(120)));
        assert_eq!(parse(json!("7")), Some(Duration::from_secs(7)));
        for wrong in [json!(-1), json!("soon"), json!(null), json!([1]), json!("NaN"), json!("inf"), json!(1e300)] {
            assert_eq!(parse(wrong.clone()), None, "{wrong}");
        }
    }
}
