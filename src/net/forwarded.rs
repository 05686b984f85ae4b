//! Where a request comes from when a proxy stands in front.
//!
//! - Only proxies that are configured are believed, and only the one header that is: a proxy passes on what it does not
//!   know, so that a client could write the other.
//! - Counted from the right, the first address that is no proxy of ours is the client's. What stands left of it is the
//!   client's own word.

use std::net::IpAddr;

use hyper::{
    HeaderMap,
    header::{self, HeaderName},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    /// How many bits of it count.
    bits: u32,
}

/// The header that proxies say it in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The proxies that are believed.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// Where they are.
    pub networks: Vec<Network>,
    /// What they say it in.
    pub header: ProxyHeader,
}

impl std::str::FromStr for Network {
    type Err = ();

    /// An address, or an address and how many bits of it count: `10.0.0.0/8`.
    fn from_str(text: &str) -> Result<Network, ()> {
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base, Some(bits)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(drop)?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(drop))?;
        if bits > most { Err(()) } else { Ok(Network { base, bits }) }
    }
}

impl Network {
    fn holds(&self, ip: IpAddr) -> bool {
        match (self.base, ip.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                let rest = 32_u32.saturating_sub(self.bits);
                let begin = |ip: u32| ip.checked_shr(rest).unwrap_or(0);
                begin(base.to_bits()) == begin(ip.to_bits())
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                let rest = 128_u32.saturating_sub(self.bits);
                let begin = |ip: u128| ip.checked_shr(rest).unwrap_or(0);
                begin(base.to_bits()) == begin(ip.to_bits())
            }
            _ => false,
        }
    }
}

impl Proxies {
    /// Whether this is the address of one of them.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.holds(ip))
    }

    /// Where a request comes from that a proxy has passed on; `None` where it does not say.
    pub(super) fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let name = match self.header {
            ProxyHeader::XForwardedFor => &X_FORWARDED_FOR,
            ProxyHeader::Forwarded => &header::FORWARDED,
        };
        // What a client writes to the left must not hide what a proxy has added: no byte makes a line unreadable.
        let lines: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|line| String::from_utf8_lossy(line.as_bytes()))
            .collect();
        let mut found = None;
        let hops = lines.iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim);
        // An empty element of a list says nothing (RFC 9110 §5.6.1.2).
        for hop in hops.filter(|hop| !hop.is_empty()) {
            let address = match self.header {
                ProxyHeader::XForwardedFor => address(hop),
                ProxyHeader::Forwarded => forwarded_for(hop).and_then(address),
            };
            // Who hides is where the one is who has last been seen.
            let Some(address) = address else { return found };
            found = Some(address);
            if !self.has(address) {
                return found;
            }
        }
        found
    }
}

/// The `for` of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// An address, which may have a port behind it.
fn address(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split(']').next()?.parse().ok();
    }
    text.parse().ok().or_else(|| text.rsplit_once(':')?.0.parse().ok())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn proxies(networks: &[&str], header: ProxyHeader) -> Proxies {
        Proxies { networks: networks.iter().map(|text| text.parse().unwrap()).collect(), header }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_is_what_begins_alike() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::10.0.0.1"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("::1", "::1", "::2"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.holds(ip(inside)), "{network:?} {inside}");
            assert!(!network.holds(ip(outside)), "{network:?} {outside}");
        }
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0", "proxy.example", "/8"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_no_proxy() {
        let seen = |header: ProxyHeader, name: &'static str, lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(name, HeaderValue::from_static(line));
            }
            proxies(&["10.0.0.0/8", "::1"], header).client(&headers).map(|ip| ip.to_string())
        };
        let x = |lines: &[&'static str]| seen(ProxyHeader::XForwardedFor, "x-forwarded-for", lines);
        assert_eq!(x(&["192.0.2.1"]).as_deref(), Some("192.0.2.1"));
        assert_eq!(x(&["1.1.1.1, 192.0.2.1, 10.0.0.7"]).as_deref(), Some("192.0.2.1"));
        assert_eq!(x(&["1.1.1.1", "192.0.2.1,10.0.0.7"]).as_deref(), Some("192.0.2.1"));
        assert_eq!(x(&["10.0.0.8, 10.0.0.7"]).as_deref(), Some("10.0.0.8"), "from within");
        assert_eq!(x(&["192.0.2.1:443"]).as_deref(), Some("192.0.2.1"));
        assert_eq!(x(&["[2001:db8::1]:443, ::1"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(x(&["1.1.1.1, nonsense, 10.0.0.7"]).as_deref(), Some("10.0.0.7"));
        assert_eq!(x(&["192.0.2.1, , 10.0.0.7,"]).as_deref(), Some("192.0.2.1"));
        let mut headers = HeaderMap::new();
        let line = HeaderValue::from_bytes(b"\xe9, 192.0.2.1, 10.0.0.7").unwrap();
        headers.append("x-forwarded-for", line);
        let believed = proxies(&["10.0.0.0/8"], ProxyHeader::XForwardedFor);
        assert_eq!(believed.client(&headers), Some(ip("192.0.2.1")), "bytes that are no text");
        assert_eq!(x(&[""]), None);
        assert_eq!(x(&[]), None);
        let f = |lines: &[&'static str]| seen(ProxyHeader::Forwarded, "forwarded", lines);
        let line = "for=1.1.1.1, for=192.0.2.60;proto=http;by=203.0.113.43, For=\"[::1]:4711\"";
        assert_eq!(f(&[line]).as_deref(), Some("192.0.2.60"));
        assert_eq!(f(&["for=unknown"]), None);
        assert_eq!(f(&["for=_hidden, for=10.0.0.7"]).as_deref(), Some("10.0.0.7"));
        // The other header is a client's to write.
        assert_eq!(seen(ProxyHeader::Forwarded, "x-forwarded-for", &["192.0.2.1"]), None);
        assert_eq!(seen(ProxyHeader::XForwardedFor, "forwarded", &["for=192.0.2.1"]), None);
    }
}
