// SPDX-License-Identifier: GPL-2.0

//! What Xen's tools say about the domains.

use anyhow::{Context, Result};

/// One line of `xl list`.
#[derive(Clone, Debug, PartialEq)]
pub struct Domain {
    /// Its name; Dom0's is `Domain-0`.
    pub name: String,
    /// Its number.
    pub id: u16,
    /// Its memory in MiB.
    pub memory: u64,
    /// Its virtual CPUs.
    pub vcpus: u32,
    /// The letters of its state: `r`unning, `b`locked, `p`aused, `s`hut down, `c`rashed, `d`ying.
    pub state: String,
    /// CPU seconds that it has used, with a resolution of 0.1 s.
    pub cpu_seconds: f64,
}

impl Domain {
    /// Whether it ended by itself.
    pub fn is_dead(&self) -> bool {
        self.state.contains(['c', 's', 'd'])
    }
}

/// Understands what `xl list` prints.
///
/// # Errors
///
/// It is not what was expected.
pub(crate) fn parse_list(text: &str) -> Result<Vec<Domain>> {
    text.lines()
        .skip(1)
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, id, memory, vcpus, state, time] = words[..] else {
                anyhow::bail!("xl list: {line}");
            };
            let parse = || {
                Some(Domain {
                    name: name.to_owned(),
                    id: id.parse().ok()?,
                    memory: memory.parse().ok()?,
                    vcpus: vcpus.parse().ok()?,
                    state: state.to_owned(),
                    cpu_seconds: time.parse().ok()?,
                })
            };
            parse().with_context(|| format!("xl list: {line}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_understood() {
        let text = "Name      ID   Mem VCPUs      State   Time(s)\n\
                    Domain-0   0  1536     1     r-----      12.3\n\
                    guest1     1   256     2     ---sc-       4.0\n";
        let domains = parse_list(text).unwrap();
        assert_eq!(domains[0].cpu_seconds, 12.3);
        assert!(!domains[0].is_dead());
        assert!(domains[1].is_dead());
        assert!(parse_list("x\ny\n").is_err());
    }
}
