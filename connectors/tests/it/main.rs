mod contract_clock;
mod contract_history;
mod contract_online;
mod contract_source;
mod contract_state;
