// SPDX-License-Identifier: GPL-2.0

//! Finds the lines of a kernel's or of Xen's log that no test may leave behind.

/// What such a line contains.
const SIGNS: [&str; 27] = [
    "BUG:",
    "kernel BUG",
    "WARNING:",
    "Oops",
    "general protection",
    "Call Trace",
    "Kernel panic",
    "soft lockup",
    "hard LOCKUP",
    "rcu_sched self-detected",
    "detected stalls",
    "blocked for more than",
    "leaking",
    "still pending",
    "could not be unmapped",
    "scheduling while atomic",
    "sleeping function called",
    "refcount_t:",
    "list_add corruption",
    "unregister_netdevice: waiting",
    // These come from kernels that check themselves, besides some that are above: KASAN and lockdep say BUG or WARNING.
    "INFO: lockdep is turned off",
    "INFO: trying to register non-static key",
    "ODEBUG:",
    "UBSAN:",
    "Xen BUG at",
    "Xen WARN at",
    "Panic on CPU",
];

/// What a line contains that has a sign in it and yet is as it should be.
const HARMLESS: [&str; 2] = [
    // Xen says so of its own command line, at each boot.
    "WARNING: SPEC",
    "WARNING: xpti",
];

/// What the first line of a kernel's report contains that is none of ours, whatever the rest of it says.
///
/// Linux 7.3's netfront, restored while packets are on their way, wants to keep their pages as if none were slab memory.
const REPORTS_OF_OTHERS: [&str; 1] = ["xennet_disconnect_backend"];

/// The last line of a kernel's report.
const REPORT_END: &str = "---[ end trace";

/// The lines of `log` that report something wrong.
pub fn problems(log: &str) -> Vec<String> {
    let mut is_skipped = false;
    log.lines()
        .filter(|line| {
            is_skipped |= line.contains("WARNING:")
                && REPORTS_OF_OTHERS.iter().any(|sign| line.contains(sign));
            let skip = is_skipped;
            is_skipped &= !line.contains(REPORT_END);
            !skip
        })
        .filter(|line| SIGNS.iter().any(|sign| line.contains(sign)))
        .filter(|line| !HARMLESS.iter().any(|harmless| line.contains(harmless)))
        .map(String::from)
        .collect()
}

/// Whether a console shows that its machine has ended by itself.
pub(crate) fn is_dead(console: &str) -> bool {
    [
        "Kernel panic - not syncing",
        "Panic on CPU",
        "Hardware Dom0 crashed",
        "Domain 0 crashed",
    ]
    .iter()
    .any(|sign| console.contains(sign))
}

/// The last `count` lines of a text.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_found() {
        let log = "all well\nxen:grant_table: g.e. 0x9 leaking\nBUG: unable to handle\n";
        assert_eq!(problems(log).len(), 2);
        assert!(problems("xen-netfront: fine\n").is_empty());
    }

    #[test]
    fn reports_of_others_are_skipped() {
        let report = |function| {
            format!("WARNING: mm.h:1 at {function}+0x1/0x2\nCall Trace:\n---[ end trace 0 ]---\n")
        };
        let log = report("xennet_disconnect_backend") + &report("xenvmc");
        assert_eq!(problems(&log).len(), 2);
    }

    #[test]
    fn tail_is_the_end() {
        assert_eq!(tail("1\n2\n3\n", 2), "2\n3");
    }
}
