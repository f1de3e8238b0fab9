//! What a processor draws: a model, in watts, for comparing policies with each other. It is not a measurement: its
//! constants are of the order of a server processor with eight cores and 115 W (that of IX's authors).

/// The model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Power {
    /// What is drawn with all cores halted.
    pub package_w: f64,
    /// A core that polls at the highest frequency, more than when it is halted.
    pub core_w: f64,
    /// The voltage at the lowest thinkable frequency, as a share of that at the highest. Between them it rises in
    /// proportion.
    pub lowest_voltage: f64,
}

impl Default for Power {
    fn default() -> Power {
        Power { package_w: 25.0, core_w: 10.0, lowest_voltage: 0.6 }
    }
}

impl Power {
    /// With so many cores polling at such a share of the highest frequency: power goes with frequency and the voltage's
    /// square. A core that serves polls, whether or not it has work, as IX's do.
    pub fn watts(&self, cores: u32, frequency: f64) -> f64 {
        let voltage = self.lowest_voltage + (1.0 - self.lowest_voltage) * frequency;
        self.package_w + f64::from(cores) * self.core_w * frequency * voltage * voltage
    }
}
