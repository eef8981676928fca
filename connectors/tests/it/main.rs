mod contract_history;
