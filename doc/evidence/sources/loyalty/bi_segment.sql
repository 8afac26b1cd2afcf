select * from loyalty.bi_segment
