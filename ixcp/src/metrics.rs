//! `ixcp metrics`: what all dataplanes count, for Prometheus.
use crate::cli::Metrics;
use crate::control::print;
use crate::instance::Base;
use crate::observe;
use anyhow::{Context, Result};
use std::net::TcpListener;
use std::time::Duration;

pub mod http;
pub mod text;

/// How long hearts are watched before they count as still.
const HEART: Duration = Duration::from_millis(500);

/// `ixcp metrics`.
pub fn run(options: &Metrics) -> Result<u8> {
    let base = Base::from_env()?;
    if options.once {
        print(&scrape(&base)?);
        return Ok(0);
    }
    let listener = TcpListener::bind(options.listen).with_context(|| {
        format!(
            "cannot listen on {}: choose another port with --listen 127.0.0.1:PORT (0 takes a free one)",
            options.listen
        )
    })?;
    let address = listener.local_addr().context("the listener has no address")?;
    print(&format!("metrics of all dataplanes at http://{address}{}\n", http::PATH));
    http::serve(&listener, || scrape(&base))
}

/// The text of this moment.
pub fn scrape(base: &Base) -> Result<String> {
    Ok(text::exposition(&observe::alive(base, None, HEART)?))
}
