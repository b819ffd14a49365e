//! The time in which a certificate is good. Pure.

use std::path::Path;

use rollbook_cluster::tls::TlsError;
use rustls::pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

/// Seconds of a day.
const DAY: f64 = 86_400.0;

/// From when to when a certificate is good, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    from: i64,
    until: i64,
}

impl Validity {
    /// Reads the dates of a certificate, which came from `path`.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub fn of(certificate: &CertificateDer<'_>, path: &Path) -> Result<Self, TlsError> {
        let unusable = |reason: String| TlsError::Unusable { path: path.to_path_buf(), reason };
        let (_, parsed) = parse_x509_certificate(certificate).map_err(|error| unusable(error.to_string()))?;
        let validity = parsed.validity();
        Ok(Self { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
    }

    /// Says why the certificate cannot be used at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// The certificate is not good yet, or not any more.
    pub fn check(self, now: i64, path: &Path) -> Result<(), TlsError> {
        let unusable = |reason: String| Err(TlsError::Unusable { path: path.to_path_buf(), reason });
        let days = self.days_left(now);
        if now < self.from {
            return unusable(
                "the certificate is not valid yet; check the clock of this machine, or use the certificate before"
                    .to_owned(),
            );
        }
        if now > self.until {
            return unusable(format!("the certificate has been expired for {:.1} days; renew it", -days));
        }
        Ok(())
    }

    /// Days until the end, below 0 when the certificate has expired.
    #[must_use]
    pub fn days_left(self, now: i64) -> f64 {
        // A difference of dates is exact in a double for longer than any certificate is valid.
        let seconds = i32::try_from(self.until.saturating_sub(now).clamp(i64::from(i32::MIN), i64::from(i32::MAX)));
        f64::from(seconds.unwrap_or_default()) / DAY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_good_between_its_dates() {
        let validity = Validity { from: 1000, until: 1000 + 86_400 * 2 };
        let check = |now| validity.check(now, Path::new("c.pem")).map_err(|error| error.to_string());
        assert!(check(999).unwrap_err().contains("not valid yet"));
        assert_eq!((check(1000), check(1000 + 86_400 * 2)), (Ok(()), Ok(())));
        assert_eq!(
            check(1000 + 86_400 * 3).unwrap_err(),
            "c.pem cannot be used: the certificate has been expired for 1.0 days; renew it"
        );
        assert!((validity.days_left(1000) - 2.0).abs() < 1e-9);
        assert!(validity.days_left(1000 + 86_400 * 3) < 0.0);
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        let noise = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        assert!(Validity::of(&noise, Path::new("c.pem")).unwrap_err().to_string().starts_with("c.pem cannot be used"));
    }
}
