# Reads the messages whose files are named on the command line; prints what a stranger understands,
# one JSON object a line. The reader is Email::MIME, which shares no code with Python's.
use strict;
use warnings;
use Email::MIME;
use JSON::PP;
use MIME::Base64 qw(encode_base64);

my $json = JSON::PP->new->ascii->canonical;

sub addresses {
    my ($message, $name) = @_;
    my $list = $message->header_as_obj($name) or return [];
    return [map {
        my $address = $_->address // '';
        utf8::decode($address);  # UTF-8 of RFC 6532, which it leaves as octets
        [$_->phrase // '', $address]
    } $list->addresses];
}

for my $path (@ARGV) {
    open my $file, '<:raw', $path or die "$path: $!";
    my $message = Email::MIME->new(do { local $/; <$file> });
    my @parts;
    $message->walk_parts(sub {
        my ($part) = @_;
        return if $part->subparts;
        my ($type) = split /\s*;/, $part->content_type // 'text/plain';
        my ($disposition) = split /\s*;/, $part->header('Content-Disposition') // '';
        push @parts, {
            type => $type,
            disposition => $disposition // '',
            filename => scalar $part->filename,
            content_id => scalar $part->header('Content-ID'),
            content => encode_base64($part->body, ''),
        };
    });
    print $json->encode({
        names => [$message->header_names],
        subject => scalar $message->header_str('Subject'),
        note => scalar $message->header_str('X-Note'),
        from => addresses($message, 'From'),
        to => addresses($message, 'To'),
        parts => \@parts,
    }), "\n";
}
