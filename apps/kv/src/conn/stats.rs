//! `stats`: memcached's names for what there is.
use super::Conn;
use super::command::{Tokens, VERSION};
use crate::clients::Client;
use crate::limits::{CONNECTIONS_SHOWN, KEY_BYTES_MAX, STOCK_CHUNK_BYTES_MAX};
use crate::out::{ChunkPool, Out};
use crate::store::{CLASSES, Tune};
use crate::time::Clock;
use crate::worker::Worker;
use core::fmt::{Display, Write};
use core::sync::atomic::Ordering::Relaxed;
use libix::SocketAddress;

/// Writes `STAT` lines into the reply.
struct Lines<'a> {
    out: &'a mut Out,
    pool: &'a mut ChunkPool,
}

impl Write for Lines<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.out.text(self.pool, text.as_bytes());
        Ok(())
    }
}

impl Lines<'_> {
    fn stat(&mut self, name: &str, value: impl Display) {
        // Writing into the reply cannot fail.
        let _ = write!(self, "STAT {name} {value}\r\n");
    }

    fn class(&mut self, group: &str, class: usize, name: &str, value: impl Display) {
        let _ = write!(self, "STAT {group}{class}:{name} {value}\r\n");
    }

    fn end(&mut self) {
        let _ = self.write_str("END\r\n");
    }
}

impl Conn {
    pub(super) fn stats(&mut self, worker: &mut Worker<'_>, tokens: &Tokens<'_>) {
        let (shared, now) = (worker.shared, worker.now);
        let mut lines = Lines { out: &mut self.out, pool: &mut worker.pool };
        let view = View { shared, now };
        match tokens.get(1) {
            b"" => view.general(&mut lines),
            b"settings" => view.settings(&mut lines),
            b"items" => view.items(&mut lines),
            b"slabs" => view.slabs(&mut lines),
            b"conns" => view.conns(&mut lines, self.client.as_deref()),
            b"cachedump" => {
                let _ = lines.write_str("CLIENT_ERROR stats cachedump not allowed\r\n");
            }
            b"sizes" => {
                lines.stat("sizes_status", "disabled");
                lines.end();
            }
            b"reset" => {
                shared.reset();
                let _ = lines.write_str("RESET\r\n");
            }
            b"detail" => match (tokens.len(), tokens.get(2)) {
                (3.., b"on" | b"off") => {
                    let _ = lines.write_str("OK\r\n");
                }
                (3.., b"dump") => lines.end(),
                _ => {
                    let _ = lines.write_str("CLIENT_ERROR usage: stats detail on|off|dump\r\n");
                }
            },
            _ => {
                let _ = lines.write_str("ERROR\r\n");
            }
        }
    }
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// A factor, with two digits behind the point.
struct Thousandths(u32);

impl Display for Thousandths {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{:02}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

struct View<'a> {
    shared: &'a crate::worker::Shared,
    now: u32,
}

impl View<'_> {
    fn general(&self, lines: &mut Lines<'_>) {
        let settings = &self.shared.settings;
        let (t, f) = (self.shared.totals(), self.shared.store.figures());
        lines.stat("pid", 1);
        lines.stat("uptime", Clock::uptime(self.now));
        lines.stat("time", settings.clock.unix(self.now));
        lines.stat("version", VERSION);
        lines.stat("pointer_size", 64);
        lines.stat("max_connections", settings.max_conns);
        lines.stat("curr_connections", self.shared.connections());
        lines.stat("total_connections", t.opened);
        lines.stat("rejected_connections", t.rejected);
        for (name, value) in [
            ("cmd_get", t.cmd_get),
            ("cmd_set", t.cmd_set),
            ("cmd_flush", t.cmd_flush),
            ("cmd_touch", t.cmd_touch),
            ("cmd_meta", t.cmd_meta),
            ("get_hits", t.get_hits),
            ("get_misses", t.get_misses),
            ("get_expired", t.get_expired),
            ("get_flushed", t.get_flushed),
            ("delete_misses", t.delete_misses),
            ("delete_hits", t.delete_hits),
            ("incr_misses", t.incr_misses),
            ("incr_hits", t.incr_hits),
            ("decr_misses", t.decr_misses),
            ("decr_hits", t.decr_hits),
            ("cas_misses", t.cas_misses),
            ("cas_hits", t.cas_hits),
            ("cas_badval", t.cas_badval),
            ("touch_hits", t.touch_hits),
            ("touch_misses", t.touch_misses),
            ("store_too_large", t.store_too_large),
            ("store_no_memory", t.store_no_memory),
            ("bytes_read", t.bytes_read),
            ("bytes_written", t.bytes_written),
            ("limit_maxbytes", self.shared.store.limit() as u64),
            ("accepting_conns", 1),
            ("threads", u64::from(settings.threads)),
            ("idle_kicks", t.idle_kicks),
            ("conn_yields", t.conn_yields),
            ("hash_power_level", u64::from(f.hash_buckets.ilog2())),
            ("hash_bytes", f.hash_buckets * 4),
            ("hash_is_expanding", 0),
            ("slabs_moved", f.slabs_moved),
            ("bytes", f.bytes),
            ("curr_items", f.curr_items),
            ("total_items", f.total_items),
            ("slab_global_page_pool", f.slab_global_page_pool),
            ("expired_unfetched", f.expired_unfetched),
            ("evicted_unfetched", f.evicted_unfetched),
            ("evictions", f.evictions),
            ("reclaimed", f.reclaimed),
            ("lrutail_reflocked", f.lrutail_reflocked),
            ("crawler_reclaimed", f.crawler_reclaimed),
            ("crawler_items_checked", f.crawler_items_checked),
            ("moves_to_cold", f.moves_to_cold),
            ("moves_to_warm", f.moves_to_warm),
            ("moves_within_lru", f.moves_within_lru),
        ] {
            lines.stat(name, value);
        }
        lines.end();
    }

    /// Numbers 1 and 2 are the listeners; who asks is busy, the others are waited for.
    fn conns(&self, lines: &mut Lines<'_>, asking: Option<&Client>) {
        let settings = &self.shared.settings;
        for (id, protocol, port, state) in [
            (1, "tcp", settings.port, "conn_listening"),
            (2, "udp", settings.udp_port, "conn_read"),
        ] {
            if port == 0 {
                continue;
            }
            if protocol == "udp" {
                lines.stat("2:UDP", "UDP");
            }
            lines.class("", id, "addr", format_args!("{protocol}:0.0.0.0:{port}"));
            lines.class("", id, "state", state);
            lines.class("", id, "secs_since_last_cmd", 0);
        }
        for client in self.shared.clients.list(CONNECTIONS_SHOWN) {
            let id = client.id as usize;
            let SocketAddress { ip, port, .. } = client.remote;
            let family = if ip.to_v4().is_some() { "tcp" } else { "tcp6" };
            let asks = asking.is_some_and(|asking| asking.id == client.id);
            lines.class("", id, "addr", format_args!("{family}:{ip}:{port}"));
            lines.class("", id, "listen_addr", format_args!("tcp:0.0.0.0:{}", settings.port));
            lines.class("", id, "state", if asks { "conn_parse_cmd" } else { "conn_read" });
            lines.class("", id, "secs_since_last_cmd", client.idle(self.now));
        }
        lines.end();
    }

    fn settings(&self, lines: &mut Lines<'_>) {
        let (settings, tune) = (&self.shared.settings, &self.shared.store.tune);
        lines.stat("maxbytes", self.shared.store.limit());
        lines.stat("maxconns", settings.max_conns);
        lines.stat("tcpport", settings.port);
        lines.stat("udpport", settings.udp_port);
        lines.stat("inter", "NULL");
        lines.stat("verbosity", self.shared.verbosity.load(Relaxed));
        lines.stat("oldest", self.shared.store.oldest());
        lines.stat("evictions", "on");
        lines.stat("domain_socket", "NULL");
        lines.stat("shutdown_command", "no");
        lines.stat("growth_factor", "1.19");
        lines.stat("chunk_size", 64);
        lines.stat("num_threads", settings.threads);
        lines.stat("stat_key_prefix", ":");
        lines.stat("detail_enabled", "no");
        lines.stat("cas_enabled", "yes");
        lines.stat("binding_protocol", "ascii");
        lines.stat("auth_enabled_sasl", "no");
        lines.stat("auth_enabled_ascii", "no");
        lines.stat("item_size_max", self.shared.store.item_max());
        lines.stat("key_size_max", KEY_BYTES_MAX);
        lines.stat("maxconns_fast", "yes");
        lines.stat("slab_reassign", "yes");
        lines.stat("slab_automove", Tune::get(&tune.slab_automove));
        lines.stat("slab_automove_ratio", Thousandths(Tune::get(&tune.slab_automove_ratio)));
        lines.stat("slab_chunk_max", STOCK_CHUNK_BYTES_MAX);
        lines.stat("lru_crawler", yes(tune.lru_crawler.load(Relaxed)));
        lines.stat("lru_crawler_sleep", Tune::get(&tune.lru_crawler_sleep));
        lines.stat("lru_crawler_tocrawl", Tune::get(&tune.lru_crawler_tocrawl));
        lines.stat("flush_enabled", "yes");
        lines.stat("dump_enabled", "no");
        lines.stat("hash_algorithm", "foldhash");
        lines.stat("lru_maintainer_thread", "no");
        lines.stat("lru_segmented", yes(tune.lru_segmented.load(Relaxed)));
        lines.stat("hot_lru_pct", Tune::get(&tune.hot_lru_pct));
        lines.stat("warm_lru_pct", Tune::get(&tune.warm_lru_pct));
        lines.stat("hot_max_factor", Thousandths(Tune::get(&tune.hot_max_factor)));
        lines.stat("warm_max_factor", Thousandths(Tune::get(&tune.warm_max_factor)));
        let temporary_ttl = tune.temporary_ttl.load(Relaxed);
        lines.stat("temp_lru", yes(temporary_ttl >= 0));
        lines.stat("temporary_ttl", temporary_ttl.max(0));
        lines.stat("idle_timeout", settings.idle_timeout);
        lines.stat("track_sizes", "no");
        lines.end();
    }

    fn items(&self, lines: &mut Lines<'_>) {
        for class in 0..CLASSES {
            let f = self.shared.store.class_figures(class, self.now);
            if f.number == 0 {
                continue;
            }
            for (name, value) in [
                ("number", f.number),
                ("age", u64::from(f.age)),
                ("mem_requested", f.mem_requested),
                ("evicted", f.evicted),
                ("evicted_nonzero", f.evicted_nonzero),
                ("evicted_time", u64::from(f.evicted_time)),
                ("outofmemory", f.outofmemory),
                ("tailrepairs", 0),
                ("reclaimed", f.reclaimed),
                ("expired_unfetched", f.expired_unfetched),
                ("evicted_unfetched", f.evicted_unfetched),
                ("lrutail_reflocked", f.lrutail_reflocked),
                ("number_hot", f.number_of[0]),
                ("number_warm", f.number_of[1]),
                ("number_cold", f.number_of[2]),
                ("number_temp", f.number_of[3]),
                ("age_hot", u64::from(f.age_hot)),
                ("age_warm", u64::from(f.age_warm)),
                ("crawler_reclaimed", f.crawler_reclaimed),
                ("crawler_items_checked", f.crawler_items_checked),
                ("moves_to_cold", f.moves_to_cold),
                ("moves_to_warm", f.moves_to_warm),
                ("moves_within_lru", f.moves_within_lru),
            ] {
                lines.class("items:", class + 1, name, value);
            }
        }
        lines.end();
    }

    fn slabs(&self, lines: &mut Lines<'_>) {
        let (mut active, mut bytes) = (0, 0);
        for class in 0..CLASSES {
            let f = self.shared.store.class_figures(class, self.now);
            if f.pages == 0 {
                continue;
            }
            let per_page = (crate::limits::PAGE_BYTES / f.chunk_bytes) as u64;
            active += 1;
            bytes += f.pages * crate::limits::PAGE_BYTES as u64;
            for (name, value) in [
                ("chunk_size", f.chunk_bytes as u64),
                ("chunks_per_page", per_page),
                ("total_pages", f.pages),
                ("total_chunks", f.pages * per_page),
                ("used_chunks", f.used_chunks),
                ("free_chunks", f.pages * per_page - f.used_chunks),
                ("free_chunks_end", 0),
            ] {
                lines.class("", class + 1, name, value);
            }
        }
        lines.stat("active_slabs", active);
        lines.stat("total_malloced", bytes);
        lines.end();
    }
}
