-- raw lines as a shop exports them: the columns of Online Retail
CREATE TABLE raw_line (line_no int, invoice_no text, stock_code text, description text, quantity int,
    invoice_date timestamp, unit_price numeric, customer_id text, country text);
