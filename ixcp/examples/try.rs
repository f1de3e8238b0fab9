use ixcp::{policy::*, sim::*};
fn main(){ let a:Vec<String>=std::env::args().collect();
 let mut t=toml::Table::new(); ixcp::policy::config::overlay(&mut t, ixcp::policy::config::setting(&format!("policy={}",a[1])).unwrap());
 for s in &a[3..] { ixcp::policy::config::overlay(&mut t, ixcp::policy::config::setting(s).unwrap()); }
 let c=Config::from_table(t,"x").unwrap();
 let s=Setup::new(c, Curve::find(&a[2]).unwrap());
 let b=std::time::Instant::now();
 let r=run(&s); print!("{}{}", r.text(), r.decisions()); println!("{:?}", b.elapsed());
}
