//! `ixcp record`: load, cores and queueing delay of a running dataplane, line by line, for `ixcp plot` and
//! `ixcp policy simulate --load`.
use crate::cli::Record;
use crate::daemon::reader;
use crate::instance::Base;
use crate::page::Page;
use crate::snapshot;
use anyhow::{Context, Result};
use ix_abi::control::{core_block, core_offset, header, measure_offset};
use ix_abi::measure::window;
use ix_abi::stats::Counter;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The first line.
pub const HEAD: &str = "seconds,requests_per_s,cores,wants,busy,p50_us,p99_us";

/// `ixcp record`.
pub fn run(options: &Record) -> Result<u8> {
    let instance = Base::from_env()?.find(options.target.name.as_deref())?;
    let page = Page::open(&instance.control())?;
    let epoch = snapshot::check(&page)?;
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, ended.clone()).context("cannot handle signals")?;
    }
    let mut out: Box<dyn Write> = if options.write == Path::new("-") {
        Box::new(std::io::stdout().lock())
    } else {
        let file = std::fs::File::create(&options.write);
        Box::new(file.with_context(|| format!("cannot write {}", options.write.display()))?)
    };
    let file = || match options.write.to_str() {
        Some("-") => "cannot write to standard output".to_owned(),
        _ => format!("cannot write {}", options.write.display()),
    };
    // A closed pipe is an end.
    let mut put = |text: &str| match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).with_context(file),
    };
    if !put(&format!("# {}, a line each {:?}\n{HEAD}", instance.name, options.interval))? {
        return Ok(0);
    }
    let start = Instant::now();
    let mut before = (start, events(&page, epoch)?);
    while !ended.load(Ordering::Relaxed) && instance.lives() {
        if options.seconds.is_some_and(|s| start.elapsed() >= s) {
            break;
        }
        std::thread::sleep(options.interval);
        // The page of a machine that has ended or boots anew says nothing more about this run.
        let Ok(events) = events(&page, epoch) else { break };
        let now = Instant::now();
        let line = line(&page, now - start, events.wrapping_sub(before.1), now - before.0)?;
        before = (now, events);
        if !put(&line)? {
            break;
        }
    }
    Ok(0)
}

/// What the application was given since boot: its requests, by all cores.
fn events(page: &Page, epoch: u64) -> Result<u64> {
    anyhow::ensure!(snapshot::check(page)? == epoch, "the machine was booted anew");
    let view = reader::read(page)?;
    let of =
        |core| page.load(core_offset(core) + core_block::COUNTERS + Counter::Events as usize * 8);
    Ok((0..view.cores).map(of).fold(0, u64::wrapping_add))
}

fn line(page: &Page, at: Duration, events: u64, elapsed: Duration) -> Result<String> {
    let view = reader::read(page)?;
    let serving = view.sample.cores.iter().filter(|c| c.serves);
    let count = serving.clone().count();
    let busy = serving.clone().map(|c| c.busy).sum::<f64>() / count.max(1) as f64;
    let p99 = serving.map(|c| c.delay_p99_us).fold(0.0, f64::max);
    let p50 = (0..view.cores)
        .filter(|c| view.active & 1 << c != 0 && view.sample.cores[*c].delay_p99_us > 0.0);
    let p50 = p50.map(|c| page.load(measure_offset(c) + window::DELAY_P50_NS)).max().unwrap_or(0);
    let wants = view.sample.wants.map_or(String::new(), |w| w.to_string());
    // Where nothing was asked, nothing waited.
    let delays = if p99 == 0.0 || page.load(header::HISTOGRAM_BUCKETS) == 0 {
        ",".to_owned()
    } else {
        format!("{:.3},{p99:.3}", p50 as f64 / 1e3)
    };
    Ok(format!(
        "{:.3},{:.1},{count},{wants},{busy:.4},{delays}",
        at.as_secs_f64(),
        events as f64 / elapsed.as_secs_f64()
    ))
}
