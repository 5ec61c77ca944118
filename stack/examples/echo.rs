//! Sends back what it receives (RFC 862), on a network interface through AF_XDP or beside the kernel on a TAP device.
//!
//! ```text
//! echo --interface eth1 --address 192.0.2.1/24 --cores 2,3
//! echo --tap --address 10.9.0.2/24 --kernel-address 10.9.0.1/24
//! ```

use std::error::Error;

use clap::Parser;
use handfast::drivers::driver::Port;
use handfast::drivers::tap::{self, TapPort};
use handfast::drivers::xdp::AfXdp;
use handfast::{App, Cidr, Config, ConnId, Cx, Idle, Runtime};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Sends back what it receives.
#[derive(Parser)]
struct Args {
    /// Network interface, driven through AF_XDP.
    #[arg(long, required_unless_present = "tap")]
    interface: Option<String>,
    /// A TAP device instead of an interface.
    #[arg(long, conflicts_with = "interface")]
    tap: bool,
    /// Address of the kernel's side of the TAP device.
    #[arg(long, requires = "tap")]
    kernel_address: Option<Cidr>,
    /// Our addresses, each with its network: 192.0.2.1/24.
    #[arg(long, required = true)]
    address: Vec<Cidr>,
    /// Cores to run on, one queue each: 2,3. One worker anywhere unless given.
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    /// Port to listen on.
    #[arg(long, default_value_t = 7)]
    port: u16,
    /// Sleep while there is nothing to do, instead of spinning.
    #[arg(long)]
    sleep: bool,
}

struct Echo;

impl App for Echo {
    fn on_data(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        while cx.room(conn) > 0
            && let Some(frame) = cx.recv(conn)
        {
            cx.send(conn, frame).expect("room was checked");
        }
    }

    // Frames that there was no room for wait in the receive queue.
    fn on_writable(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.on_data(cx, conn);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    match &args.interface {
        Some(interface) => serve(&args, AfXdp::interface(interface)),
        None => {
            let kernel_addresses = args.kernel_address.iter().map(|cidr| (cidr.address(), cidr.prefix_len())).collect();
            serve(&args, TapPort::new(tap::Config { kernel_addresses, ..tap::Config::default() }))
        }
    }
}

fn serve<P: Port<Queue: 'static>>(args: &Args, port: P) -> Result<(), Box<dyn Error>> {
    let mut runtime = Runtime::new(Config::default()).port(port).listen(args.port);
    for &address in &args.address {
        runtime = runtime.address(address);
    }
    if !args.cores.is_empty() {
        runtime = runtime.cores(args.cores.iter().copied());
    }
    if args.sleep {
        runtime = runtime.idle(Idle::Sleep);
    }
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, runtime.stop_flag())?;
    }
    let running = runtime.spawn(|_core| Echo)?;
    println!("listening on port {}", args.port);
    print!("{}", running.join()?);
    Ok(())
}
