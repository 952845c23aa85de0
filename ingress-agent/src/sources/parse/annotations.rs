//! Annotations that look as if they meant something here, and do not: an unknown name under our prefix or ingress-nginx's, or a
//! known one on the wrong kind. What their values mean is read where they are used.

use super::{ALLOW_SHARED_IP, ASSIGNED, BALANCE, FORWARDING, POOL, TABLE_SIZE, VIPS, WEIGHT};

const OURS: &str = "sluicegate.io/";
const NGINX: &str = "nginx.ingress.kubernetes.io/";

/// Each of ours, and the kinds on which it is read.
const KNOWN: [(&str, &[&str]); 8] = [
    (VIPS, &["Service", "IngressClass"]),
    (POOL, &["Service", "IngressClass"]),
    (FORWARDING, &["Service"]),
    (BALANCE, &["Service", "Ingress"]),
    (TABLE_SIZE, &["Service"]),
    (ALLOW_SHARED_IP, &["Service"]),
    (ASSIGNED, &["Service"]),
    (WEIGHT, &["EndpointSlice"]),
];

/// Why an annotation of this name has no effect on an object of this kind. `None`: it has, or it is somebody else's.
pub fn ignored(kind: &str, name: &str) -> Option<String> {
    if name.starts_with(NGINX) && kind == "Ingress" {
        return Some("is ignored: annotations of ingress-nginx have no effect here yet".to_owned());
    }
    if !name.starts_with(OURS) {
        return None;
    }
    let Some((_, kinds)) = KNOWN.iter().find(|(known, _)| *known == name) else {
        let close = KNOWN.iter().filter(|(_, kinds)| kinds.contains(&kind)).map(|(known, _)| *known);
        let close = close.min_by_key(|known| distance(known, name)).filter(|known| distance(known, name) <= 3);
        let hint = close.map_or(String::new(), |known| format!("; is `{known}` meant?"));
        return Some(format!("is ignored: there is no such annotation{hint}"));
    };
    (!kinds.contains(&kind)).then(|| format!("is ignored: it belongs on {}", kinds.join(" or ")))
}

/// Letters to change, add or take away (Levenshtein). Long strings are just far from each other.
fn distance(a: &str, b: &str) -> usize {
    if b.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let best = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_effect_is_told_and_what_is_foreign_is_left_alone() {
        for (kind, name, reason) in [
            ("Service", "sluicegate.io/vips", None),
            ("Service", "metallb.io/address-pool", None),
            ("Ingress", "cert-manager.io/cluster-issuer", None),
            ("Service", "nginx.ingress.kubernetes.io/service-upstream", None),
            ("Ingress", "sluicegate.io/vips", Some("is ignored: it belongs on Service or IngressClass")),
            (
                "Service",
                "sluicegate.io/vip",
                Some("is ignored: there is no such annotation; is `sluicegate.io/vips` meant?"),
            ),
            ("Service", "sluicegate.io/something-else", Some("is ignored: there is no such annotation")),
            (
                "Ingress",
                "nginx.ingress.kubernetes.io/rewrite-target",
                Some("is ignored: annotations of ingress-nginx have no effect here yet"),
            ),
        ] {
            assert_eq!(ignored(kind, name).as_deref(), reason, "{kind} {name}");
        }
    }
}
