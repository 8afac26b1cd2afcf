select * from loyalty.bi_program
