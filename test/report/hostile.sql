-- names that would break out of a page which took them for HTML, and names that are too long
UPDATE loyalty.program SET name = '<b>Club</b> & "Söhne" </title><script>document.title = "broken"</script>', points_name = '<i>drops</i>' WHERE program_id = 1;
SELECT loyalty.add_tier(1, '<img src=x onerror=alert(2)>', 5000, 'spend', 2);
UPDATE loyalty.product SET category = '</script><script>document.title = "broken"</script>' WHERE category = 'Tea';
UPDATE loyalty.product SET category = '<img src=x onerror=''document.title="broken"''>' WHERE category = 'Honey';
UPDATE loyalty.product SET category = repeat('a very long name ', 12) WHERE category = 'Coffee';
UPDATE loyalty.product SET brand = '{money 1}<!--' || chr(8232) || '\u003c/script>' WHERE brand = 'Kiln';
SELECT loyalty.add_reward(1, '</ScRiPt ><svg onload=alert(1)>', 'service', 10);
SELECT loyalty.set_tier(member_id, '<img src=x onerror=alert(2)>', current_date + 90, 'hostile') FROM loyalty.member ORDER BY member_id LIMIT 20;
SET client_min_messages = warning;
UPDATE loyalty.product SET name = '<script>alert(3)</script>' WHERE sku = 'TEA-1';
CALL loyalty.fold_copurchase();
