//! CPU a request: at 10,000 Ingresses, against nginx with the same locations and against ourselves with one Ingress; and with
//! directives on the path, against nginx with the same.

use anyhow::Result;
use ingress_tests::table::Table;

use crate::Arguments;
use crate::directives::{self, Directive};
use crate::load::{Asked, Requests, turns};
use crate::peers::{NGINX, Stage};
use crate::site::{self, Ingress, Kind};

/// Issue 6, "To reach".
const OF_NGINX: f64 = 0.7;
const OF_ONE: f64 = 1.1;
const DIRECTIVE: f64 = 1.0;

pub(crate) fn many(arguments: &Arguments, table: &mut Table) -> Result<()> {
    let stage = Stage::new()?;
    let all = site::ingresses(arguments.ingresses);
    let one = site::ingresses(1);
    let manifests = |ingresses: &[Ingress]| {
        let each = ingresses.iter().map(|i| format!("---\n{}", i.manifest()));
        site::base(ingresses.len()) + &each.collect::<String>()
    };
    let ours = stage.ours("sluicegate", 8000, &manifests(&all))?;
    let single = stage.ours("sluicegate, one Ingress", 8001, &manifests(&one))?;
    let nginx = stage.nginx("nginx", 8000, &site::servers(&all, &format!("{NGINX}:8000")))?;
    let requests = |name: &str, of: &dyn Fn(&&Ingress) -> bool| {
        let asked = all.iter().filter(of);
        let asked: Vec<Asked> =
            asked.map(|i| Asked { host: i.host.clone(), path: i.asked.clone(), fields: String::new() }).collect();
        Requests::new(&stage.place.directory, name, &asked)
    };
    let mixed = requests("mixed", &|_| true)?;
    let expressions = requests("expressions", &|i| i.kind == Kind::Expression)?;
    // As many different requests: what wrk has to fetch from memory must not look like the price of many Ingresses.
    let alone = &one[0];
    let asked = (0..all.len()).map(|number| format!("{}?{number}", alone.asked));
    let asked: Vec<Asked> = asked.map(|path| Asked { host: alone.host.clone(), path, fields: String::new() }).collect();
    let alone = Requests::new(&stage.place.directory, "alone", &asked)?;

    let peers = [(&ours, &mixed), (&nginx, &mixed), (&single, &alone)];
    let costs = turns(&peers, arguments.turns, arguments.seconds)?;
    let n = all.len();
    let row = |table: &mut Table, what: String, against: (f64, f64), bar: Option<f64>| {
        let text = format!("{:.3} ({:.1} µs against {:.1} µs)", against.1, costs[0].0, against.0);
        let wanted = bar.map_or("reported".to_owned(), |bar| format!("at most {bar}"));
        table.row(&what, text, wanted, bar.is_none_or(|bar| against.1 <= bar));
    };
    row(table, format!("CPU a request, {n} Ingresses, ÷ nginx"), costs[1], Some(OF_NGINX));
    row(table, "the same ÷ ours with one Ingress".to_owned(), costs[2], Some(OF_ONE));
    let costs = turns(&[(&ours, &expressions), (&nginx, &expressions)], arguments.turns, arguments.seconds)?;
    let text = format!("{:.3} ({:.1} µs against {:.1} µs)", costs[1].1, costs[0].0, costs[1].0);
    table.row("of these, expressions alone, ÷ nginx", text, "reported", true);
    Ok(())
}

pub(crate) fn each_directive(arguments: &Arguments, table: &mut Table) -> Result<()> {
    let stage = Stage::new()?;
    let ours = stage.ours("sluicegate", 8000, &directives::manifests())?;
    let nginx = stage.nginx("nginx", 8000, &directives::servers(&stage.place.directory, &format!("{NGINX}:8000"))?)?;
    for directive in Directive::ALL {
        directives::same_answers(*directive, &ours, &nginx)?;
        let asked = Asked { host: directive.host(), path: "/".to_owned(), fields: directive.fields().to_owned() };
        let requests = Requests::new(&stage.place.directory, &directive.host(), &[asked])?;
        let costs = turns(&[(&ours, &requests), (&nginx, &requests)], arguments.turns, arguments.seconds)?;
        let text = format!("{:.3} ({:.1} µs against {:.1} µs)", costs[1].1, costs[0].0, costs[1].0);
        let bar = (*directive != Directive::Nothing).then_some(DIRECTIVE);
        let wanted = bar.map_or("reported".to_owned(), |bar| format!("at most {bar}"));
        let held = bar.is_none_or(|bar| costs[1].1 <= bar);
        table.row(&format!("CPU a request, {}, ÷ nginx", directive.name()), text, wanted, held);
    }
    Ok(())
}
